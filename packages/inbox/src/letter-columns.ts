import { type DeadLetter, isDatable, isStub, isVersion, STUB_REASON } from '@oncebox/message';
import { asBytes, type Transaction, withOwnOptions } from '@oncebox/mysql';
import type { ResultSetHeader } from 'mysql2/promise';

// The widths of dead_letters (migrations/messaging), and a value for each column that fits. What a
// column says of a message is for looking it up: the message is in `properties` and `body`, whole.
// So a value that does not fit is cut, or is none, and never a reason to keep nothing.

const ID_BYTES = 255;
const TYPE_CHARACTERS = 255;
const ROUTING_KEY_CHARACTERS = 255;
const REASON_CHARACTERS = 500;
const CLASS_CHARACTERS = 255;
const MOST_ATTEMPTS = 2 ** 32 - 1;

/** Code points, as VARCHAR counts; a lone surrogate has no bytes in UTF-8. */
function cut(text: string, characters: number): string {
  if (text.length <= characters) return text.toWellFormed();
  return Array.from(text.slice(0, 2 * characters))
    .slice(0, characters)
    .join('')
    .toWellFormed();
}

const fitting = (text: string, characters: number): string | null =>
  cut(text, characters).length === text.length ? text.toWellFormed() : null;

const dated = (time: Date | undefined): Date | null => (time !== undefined && isDatable(time) ? time : null);

/** A reason that calls itself a stub, and whose letter is none, came from outside. */
const spoken = (letter: DeadLetter): string =>
  isStub(letter) || !letter.reason.startsWith(STUB_REASON) ? letter.reason : letter.reason.slice(STUB_REASON.length);

/** In the order of the statement that inserts them. */
export function columnsOf(letter: DeadLetter) {
  const { messageId, type, version, attempts } = letter;
  const id = messageId === undefined ? null : asBytes(messageId);
  return {
    message_id: id !== null && id.length > ID_BYTES ? null : id,
    type: type === undefined ? null : fitting(type, TYPE_CHARACTERS),
    version: isVersion(version) ? version : null,
    routing_key: cut(letter.routingKey, ROUTING_KEY_CHARACTERS),
    properties: letter.properties,
    body: letter.body,
    reason: cut(spoken(letter), REASON_CHARACTERS),
    error_class: letter.errorClass === undefined ? null : cut(letter.errorClass, CLASS_CHARACTERS),
    attempts: Number.isFinite(attempts) ? Math.min(Math.max(Math.trunc(attempts), 0), MOST_ATTEMPTS) : 0,
    first_failed_at: dated(letter.firstFailedAt),
    last_failed_at: dated(letter.lastFailedAt),
    occurred_at: dated(letter.occurredAt),
    copy_hash: letter.copyHash,
  };
}

/** @returns its id. */
export async function insertDeadLetter(tx: Transaction, consumer: string, letter: DeadLetter): Promise<string> {
  const columns = columnsOf(letter);
  const names = Object.keys(columns);
  // A prepared statement, which sends the body as it is; a query would send it in hexadecimal, at
  // twice its size.
  const [{ insertId }] = await withOwnOptions(tx).execute<ResultSetHeader>(
    `INSERT INTO dead_letters (consumer, ${names.join(', ')}) VALUES (?${', ?'.repeat(names.length)})`,
    [consumer, ...Object.values(columns)],
  );
  return String(insertId);
}
