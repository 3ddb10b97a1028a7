import { MessageError } from './errors.ts';
import { fitsBytes, fitsShortString, isExact } from './limits.ts';

// What a delivery's properties and headers say, each checked for what can be kept and handed on.

/** A text that is not empty: on the wire an empty one is none. */
export const text = (value: unknown): string | undefined =>
  typeof value === 'string' && value !== '' ? value : undefined;

/**
 * What is only carried on is left out where it could not be: a foreign trace context is no reason
 * to refuse a message.
 */
export const carried = (value: unknown): string | undefined => (fitsShortString(value) ? value : undefined);

export const malformed = (why: string): MessageError => new MessageError('ONCEBOX_MALFORMED_MESSAGE', why);

/**
 * amqplib has decoded these, so their own bytes are gone, and two that differ in such bytes are the
 * same here.
 *
 * @throws MessageError ONCEBOX_MALFORMED_MESSAGE
 */
export function exact(name: string, value: string): string {
  if (isExact(value)) return value;
  throw malformed(`The ${name} is not UTF-8, or has U+FFFD in it; its own bytes cannot be kept, those of the body are`);
}

/** A name that must be there. @throws MessageError ONCEBOX_MALFORMED_MESSAGE */
export function named(name: string, value: unknown): string {
  const given = text(value);
  if (given === undefined) throw malformed(`The message has no ${name}`);
  if (!fitsBytes(given)) throw malformed(`The ${name} is over 255 bytes`);
  return exact(name, given);
}
