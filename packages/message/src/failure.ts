import { MessageError } from './errors.ts';

// What may be written down of an error. Its message may quote personal data, the duplicate key of an INSERT for one.

/** An error's class; of one that names itself after no class, nothing, as it may be anything. */
export function nameOf(error: Error): string {
  const name = error.name === 'Error' ? error.constructor.name : error.name;
  return /^[\w$.]{1,200}$/.test(name) ? name : 'Error';
}

/** `TypeError`, `MessageError ONCEBOX_INVALID_PAYLOAD`. */
export function classOf(error: Error): string {
  const code: unknown = Reflect.get(error, 'code');
  const name = nameOf(error);
  return typeof code === 'string' && /^[A-Z][A-Z0-9_]{0,200}$/.test(code) ? `${name} ${code}` : name;
}

/** What a dead letter says of its error: its class, and of ours that know to quote no data the message too. At most 500 characters. */
export function reasonOf(error: Error): string {
  const reason = error instanceof MessageError ? `${classOf(error)}: ${error.message}` : classOf(error);
  return reason.slice(0, 500).toWellFormed();
}
