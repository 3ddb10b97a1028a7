import { answersClaim, type Claim, type Contract } from '@oncebox/message';
import { InboxError, PayloadExpiredError } from './errors.ts';

/** Milliseconds for a payload, its body included. */
const TIMEOUT_MS = 10_000;

type FetchPayload = (claim: Claim, signal: AbortSignal) => Promise<string>;

/**
 * What fetches the payloads of a contract's messages that have a claim check instead.
 *
 * The address is the consumer's setting and not in the message, or whoever can write to the queue could have it fetch what it may reach.
 *
 * @throws InboxError ONCEBOX_INVALID_CONSUMER without an address, or with one that is none.
 */
export function payloadsAt(contract: Contract, from: string | undefined, timeoutMs = TIMEOUT_MS): FetchPayload {
  if (from === undefined || !URL.canParse(from)) {
    throw new InboxError(
      'ONCEBOX_INVALID_CONSUMER',
      `${contract.type}: its payloads may have to be fetched, so on() needs payloadsFrom, the URL at which its writer serves them`,
    );
  }
  const folder = new URL(from.endsWith('/') ? from : `${from}/`);
  return (claim, signal) => fetchPayload(folder, claim, AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]));
}

/**
 * @throws PayloadExpiredError, which no later attempt can cure; InboxError ONCEBOX_PAYLOAD_UNAVAILABLE, or ONCEBOX_PAYLOAD_DIFFERS from what
 *   was claimed, which one may: a proxy has answered for the writer, or a deployment is under way.
 */
async function fetchPayload(folder: URL, claim: Claim, signal: AbortSignal): Promise<string> {
  const unavailable = (why: string, cause?: unknown) =>
    new InboxError('ONCEBOX_PAYLOAD_UNAVAILABLE', `No payload from ${folder.origin}: ${why}`, { cause });
  let status: number;
  let body: Buffer;
  try {
    const response = await fetch(new URL(claim.id, folder), { signal });
    status = response.status;
    body = Buffer.from(await response.arrayBuffer());
  } catch (error) {
    throw unavailable('it does not answer', error);
  }
  if (status === 410) throw new PayloadExpiredError();
  if (status !== 200) throw unavailable(`it answered ${status}`);
  if (answersClaim(claim, body)) return body.toString('utf8');
  throw new InboxError('ONCEBOX_PAYLOAD_DIFFERS', `What ${folder.origin} answered is not the payload that was claimed`);
}
