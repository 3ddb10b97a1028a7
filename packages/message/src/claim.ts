import { createHash } from 'node:crypto';
import { z } from 'zod';
import { type Contract, versionsOf } from './contract.ts';
import type { Received } from './wire.ts';

/** What is sent in place of a payload over its contract's limit. */
export const claimCheck = z.strictObject({
  claimCheck: z.strictObject({
    id: z.uuid().describe("The message's; its writer has the payload under it."),
    bytes: z.int().min(1),
    sha256: z.string().regex(/^[0-9a-f]{64}$/),
  }),
});
export type Claim = z.output<typeof claimCheck>['claimCheck'];

const sha256Of = (payload: string | Buffer): string => createHash('sha256').update(payload).digest('hex');

/** The text that is sent for a payload. */
export const claimFor = (id: string, payload: string): string =>
  JSON.stringify({ claimCheck: { id, bytes: Buffer.byteLength(payload), sha256: sha256Of(payload) } });

/** Whether a claim check may carry this message id: a reader fetches by a UUID alone. */
export const isClaimable = (id: string): boolean => claimCheck.shape.claimCheck.shape.id.safeParse(id).success;

/** Whether these bytes are the payload that was claimed. */
export const answersClaim = ({ bytes, sha256 }: Claim, payload: Buffer): boolean =>
  payload.length === bytes && sha256Of(payload) === sha256;

/** Whether messages of a contract, or of a version before it, may have a claim check for a payload. */
export const mayBeClaimed = (contract: Contract): boolean =>
  versionsOf(contract).some(({ overLimit }) => overLimit === 'claim-check');

/** The claim check of a message that has one: in a version that may, so that nobody else's payload is taken for one. */
export function claimIn(
  contract: Contract,
  { version, payload }: Pick<Received, 'version' | 'payload'>,
): Claim | undefined {
  const sent = versionsOf(contract).find((each) => each.version === version);
  if (sent?.overLimit !== 'claim-check' || !payload.startsWith('{"claimCheck":')) return undefined;
  try {
    return claimCheck.safeParse(JSON.parse(payload)).data?.claimCheck;
  } catch {
    return undefined; // no JSON, as whoever reads it as a payload will say
  }
}
