import type { Contract } from './contract.ts';
import { MessageError } from './errors.ts';
import { differenceOf, MOST_LEVELS } from './fidelity.ts';
import { checkPayload, shown } from './payload.ts';

/**
 * Encodes a payload as the JSON text that is sent, in the order of its contract.
 *
 * The text is read back as a reader reads it, and compared with what was given: nothing else finds
 * all that JSON, a transform, a default or a stripping schema changes. It costs 4 µs for a customer
 * of 350 bytes, and 2 ms for 5,700 fields in 100 KB.
 *
 * @throws MessageError ONCEBOX_INVALID_PAYLOAD. It names the path and quotes no value.
 */
export function encodePayload<Payload>(
  contract: Contract<string, Payload>,
  given: Payload,
): { readonly payload: Payload; readonly text: string } {
  const payload = checkPayload(contract, given);
  const text = stringify(contract, payload);
  const difference = differenceOf(given, readBack(contract, text));
  if (difference === undefined) return { payload, text };
  if (difference.length >= MOST_LEVELS) throw unfit(contract, `it is nested deeper than ${MOST_LEVELS} levels`, '');
  const path = difference.map(shown).join('.');
  throw unfit(
    contract,
    'its readers would get something else than was given. Give plain JSON values in the form that the schema makes of them',
    path,
  );
}

/** What JSON leaves out altogether, such as undefined, has no text. */
function stringify<Payload>(contract: Contract<string, Payload>, payload: Payload): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(payload);
  } catch (cause) {
    throw unfit(contract, 'it cannot be written as JSON: it is circular or too deep, or has a BigInt', '', { cause });
  }
  if (text === undefined) throw unfit(contract, 'it cannot be written as JSON: it has no value', '');
  return text;
}

function readBack<Payload>(contract: Contract<string, Payload>, text: string): Payload {
  try {
    return contract.read(contract.version, JSON.parse(text));
  } catch (error) {
    if (!(error instanceof MessageError) || error.issues.length === 0) throw error;
    const { issues } = error;
    const why = issues.map(({ path, message }) => `${path || '(payload)'}: ${message}`).join('; ');
    throw new MessageError(
      error.code,
      `${nameOf(contract)}: its readers would refuse the payload, as JSON has no such value: ${why}`,
      issues,
    );
  }
}

/** @param path '' for the payload itself; undefined for what is no place in it. */
export function unfit(contract: Contract<string>, why: string, path?: string, options?: ErrorOptions): MessageError {
  const at = path === undefined ? '' : `${path || '(payload)'}: `;
  const issues = path === undefined ? [] : [{ path, message: why }];
  return new MessageError('ONCEBOX_INVALID_PAYLOAD', `${nameOf(contract)}: ${at}${why}`, issues, options);
}

const nameOf = ({ type, version }: Contract<string>): string => `${type} v${version}`;
