import type { Contract } from './contract.ts';
import { MessageError } from './errors.ts';
import { nameOf } from './failure.ts';

/** A key is data too where the schema leaves it open, as in a record by e-mail address: only what reads like a field's name is shown. */
export const shown = (key: PropertyKey): string =>
  typeof key === 'number' || (typeof key === 'string' && /^[A-Za-z_]\w*$/.test(key)) ? String(key) : '*';

/**
 * Checks a value against a contract's schema.
 *
 * @param sent the version that the value was made from by upcasters, if it was.
 * @throws MessageError ONCEBOX_INVALID_PAYLOAD. It names paths and rules and quotes no value, which may be personal data.
 *   ONCEBOX_INVALID_CONTRACT for a schema that is asynchronous.
 */
export function checkPayload<Payload>(contract: Contract<string, Payload>, value: unknown, sent?: number): Payload {
  const parsed = parse(contract, value);
  if (parsed.success) return parsed.data;
  const issues = parsed.error.issues.map((issue) => ({
    path: issue.path.map(shown).join('.'),
    message:
      issue.code === 'unrecognized_keys' ? `Unrecognized keys: ${issue.keys.map(shown).join(', ')}` : issue.message,
  }));
  throw new MessageError(
    'ONCEBOX_INVALID_PAYLOAD',
    `${contract.type} v${contract.version}${sent === undefined ? '' : `, upcast from v${sent}`}: the payload breaks its contract: ${issues
      .map(({ path, message }) => `${path || '(payload)'}: ${message}`)
      .join('; ')}`,
    issues,
  );
}

function parse<Payload>({ type, version, schema }: Contract<string, Payload>, value: unknown) {
  try {
    return schema.safeParse(value);
  } catch (cause) {
    const name = cause instanceof Error ? nameOf(cause) : typeof cause;
    // By its name, because the schema may be another copy of zod's.
    if (name === '$ZodAsyncError') {
      const text = `${type} v${version}: its schema is asynchronous; look things up before the message is made`;
      throw new MessageError('ONCEBOX_INVALID_CONTRACT', text, [], { cause });
    }
    const text = `${type} v${version}: its schema ended in ${name} instead of a result: a function in it threw, or the payload is too deep`;
    throw new MessageError('ONCEBOX_INVALID_PAYLOAD', text, [], { cause });
  }
}

/**
 * Reads the text of a received payload by its contract.
 *
 * @param version that it was sent as: the contract's or an earlier one. What is returned is of the contract's.
 * @throws MessageError ONCEBOX_INVALID_PAYLOAD when it is no JSON or breaks the contract.
 */
export function parsePayload<Payload>(contract: Contract<string, Payload>, text: string, version: number): Payload {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new MessageError('ONCEBOX_INVALID_PAYLOAD', `${contract.type} v${version}: the body is not JSON`);
  }
  return contract.read(version, value);
}
