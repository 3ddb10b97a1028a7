import type { ContractDefinition } from './contract.ts';
import { MessageError } from './errors.ts';
import { EXCHANGE_CHARACTERS, fitsBytes, fitsCharacters, fitsShortString } from './limits.ts';

const NAME = /^[A-Za-z][A-Za-z0-9._-]{0,127}$/;
const isName = (value: unknown): boolean => typeof value === 'string' && NAME.test(value);

/**
 * Checks a contract's names and settings, defaults included, for callers without types too: what
 * would be refused when a message is written is refused when the module loads.
 *
 * @throws MessageError ONCEBOX_INVALID_CONTRACT
 */
export function checkDefinition<Payload>(definition: Required<ContractDefinition<string, Payload>>): void {
  const { type, version, aggregateType, aggregateId, payload, routingKey, exchange } = definition;
  const { delivery, whenParked, overLimit, maxBytes } = definition;
  const refuse = (why: string): never => {
    throw new MessageError('ONCEBOX_INVALID_CONTRACT', `Message contract ${JSON.stringify(type)}: ${why}`);
  };
  if (!isName(type)) refuse('type must be a name of at most 128 letters, digits, ".", "_", "-"');
  if (!isName(aggregateType)) refuse('aggregateType must be such a name too');
  if (!Number.isInteger(version) || version < 1 || version > 65_535)
    refuse('version must be an integer from 1 to 65535');
  if (!fitsShortString(routingKey)) refuse('routingKey must have 1 to 255 bytes, in well-formed text without U+FFFD');
  if (!fitsCharacters(exchange, EXCHANGE_CHARACTERS) || !fitsBytes(exchange))
    refuse(
      `exchange must have 1 to ${EXCHANGE_CHARACTERS} characters and 255 bytes, in well-formed text without U+FFFD`,
    );
  // The database refuses another word only when a message is written, or stores an empty one under
  // a lenient sql_mode.
  if (!['required', 'optional'].includes(delivery)) refuse("delivery must be 'required' or 'optional'");
  if (!['hold', 'continue'].includes(whenParked)) refuse("whenParked must be 'hold' or 'continue'");
  if (!['refuse', 'claim-check'].includes(overLimit)) refuse("overLimit must be 'refuse' or 'claim-check'");
  if (typeof aggregateId !== 'function') refuse('aggregateId must be a function of the payload');
  if (typeof payload?.safeParse !== 'function') refuse('payload must be a zod schema');
  if (!Number.isInteger(maxBytes) || maxBytes < 1) refuse('maxBytes must be a whole number of bytes from 1');
}
