import { isUtf8 } from 'node:buffer';
import type { DeadMessage, Received } from '@oncebox/message';
import { asBytes, isDuplicateKey, type Pool, type Transaction, transaction, withOwnOptions } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';

// held_messages and held_keys. A key is held while it has messages there; its row in held_keys says
// when the first of them is due. Who hands a message over looks without a lock, or it would wait
// for the handler that runs on the key's row. What can go wrong in between is that a message is
// added to a key whose row is being deleted; both sides therefore look again when they have
// committed (`awaken`), and whichever commits later finds it.

/**
 * What orders messages: those of one key take effect in the order of their arrival. One without an
 * aggregate has a key of its own.
 */
export const keyOf = ({ aggregateId, id }: Pick<Received, 'aggregateId' | 'id'>): string => aggregateId ?? id;

/** No text of a message begins with half a character. */
const NOT_UTF8 = '\ud800';

/**
 * A key as text. Somebody may have written any bytes, and what found them again as other bytes
 * would find nothing.
 */
export const textOf = (key: Buffer): string =>
  isUtf8(key) ? key.toString('utf8') : `${NOT_UTF8}${key.toString('latin1')}`;

const bytesOf = (key: string): Buffer =>
  key.startsWith(NOT_UTF8) ? Buffer.from(key.slice(NOT_UTF8.length), 'latin1') : asBytes(key);

/** What is known of a batch before it is handled. */
export interface Known {
  /** Keys of it that are held. */
  readonly held: Set<string>;
  /**
   * Ids of messages that have been given up. Their dead letters decide what becomes of them, so
   * that a later copy is not tried anew.
   */
  readonly givenUp: Set<string>;
}

/** Plain reads of two indexes. */
export async function knownOf(tx: Transaction, consumer: string, batch: readonly Received[]): Promise<Known> {
  const keys = new Set(batch.map(keyOf));
  const [rows] = await withOwnOptions(tx).query<(RowDataPacket & { what: 'held' | 'given up'; name: Buffer })[]>(
    `SELECT 'held' AS what, ordering_key AS name FROM held_messages FORCE INDEX (held_messages_key)
      WHERE consumer = ? AND ordering_key IN (?)
      UNION
     SELECT 'given up', message_id FROM dead_letters FORCE INDEX (dead_letters_message)
      WHERE consumer = ? AND message_id IN (?)`,
    [asBytes(consumer), [...keys].map(asBytes), asBytes(consumer), batch.map(({ id }) => asBytes(id))],
  );
  const named = (wanted: string) =>
    new Set(rows.filter(({ what }) => what === wanted).map(({ name }) => name.toString('utf8')));
  return { held: named('held'), givenUp: named('given up') };
}

/**
 * Adds a message behind those of its key. One that is there already, from before a crash, stays
 * where it is.
 */
export async function addHeld(
  tx: Transaction,
  consumer: string,
  held: { readonly key: string; readonly id: string; readonly original: DeadMessage },
): Promise<void> {
  const { routingKey, properties, body } = held.original;
  try {
    await withOwnOptions(tx).execute(
      `INSERT INTO held_messages (consumer, ordering_key, message_id, routing_key, properties, body) VALUES (?, ?, ?, ?, ?, ?)`,
      [consumer, bytesOf(held.key), asBytes(held.id), routingKey, properties, body],
    );
  } catch (error) {
    if (!isDuplicateKey(error)) throw error;
  }
}

/**
 * When the first message of a key is to be tried again; or, with `deadLetter`, that this waits for
 * what becomes of the dead letter.
 */
export interface Schedule {
  readonly attempts: number;
  readonly inMs?: number;
  readonly deadLetter?: string;
}

/** A key that has a row already keeps it: another worker has held it in the meantime. */
export async function addKey(tx: Transaction, consumer: string, key: string, schedule: Schedule): Promise<void> {
  try {
    await withOwnOptions(tx).execute(
      `INSERT INTO held_keys (consumer, ordering_key, attempts, first_failed_at, due_at, dead_letter)
       VALUES (?, ?, ?, UTC_TIMESTAMP(6), TIMESTAMPADD(MICROSECOND, ?, UTC_TIMESTAMP(6)), ?)`,
      [consumer, bytesOf(key), schedule.attempts, microseconds(schedule), schedule.deadLetter ?? null],
    );
  } catch (error) {
    if (!isDuplicateKey(error)) throw error;
  }
}

export async function reschedule(tx: Transaction, consumer: string, key: string, schedule: Schedule): Promise<void> {
  await withOwnOptions(tx).execute(
    `UPDATE held_keys SET begun = 0, attempts = ?, first_failed_at = COALESCE(first_failed_at, UTC_TIMESTAMP(6)),
            due_at = TIMESTAMPADD(MICROSECOND, ?, UTC_TIMESTAMP(6)), dead_letter = ?
      WHERE consumer = ? AND ordering_key = ?`,
    [schedule.attempts, microseconds(schedule), schedule.deadLetter ?? null, consumer, bytesOf(key)],
  );
}

/** NULL where nothing is scheduled, and NULL added to a time is NULL. */
const microseconds = ({ inMs }: Schedule): number | null => (inMs === undefined ? null : inMs * 1_000);

export interface Due {
  readonly key: string;
  readonly attempts: number;
  readonly begun: number;
  readonly firstFailedAt: Date | null;
}

// Somebody may have written any number and time: one more attempt must fit into its column, and the
// time be one. LEAST alone is a decimal, which the driver gives as text.
const COUNTED = `CAST(LEAST(attempts, 1000000) AS UNSIGNED) AS attempts, begun,
  IF(first_failed_at < '1000-01-01', NULL, first_failed_at) AS firstFailedAt`;

/**
 * Locks a key whose first message is due, but for those of `leftOut`. The lock is the right to
 * handle it; a worker that dies gives it back at once.
 */
export async function lockDue(tx: Transaction, consumer: string, leftOut: readonly string[]): Promise<Due | undefined> {
  // The index is forced so that no key is locked on the way which is not due. It has the key's
  // columns, so none that is left out is read.
  const [rows] = await withOwnOptions(tx).query<(RowDataPacket & Omit<Due, 'key'> & { key: Buffer })[]>(
    `SELECT ordering_key AS \`key\`, ${COUNTED} FROM held_keys FORCE INDEX (held_keys_due)
      WHERE consumer = ? AND due_at <= UTC_TIMESTAMP(6) ${leftOut.length === 0 ? '' : 'AND ordering_key NOT IN (?)'}
      ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED`,
    leftOut.length === 0 ? [consumer] : [consumer, leftOut.map(bytesOf)],
  );
  return rows.map((row) => ({ ...row, key: textOf(row.key) }))[0];
}

/** The same for one key, if it is due. */
export async function lockKey(tx: Transaction, consumer: string, key: string): Promise<Due | undefined> {
  const [rows] = await withOwnOptions(tx).execute<(RowDataPacket & Omit<Due, 'key'>)[]>(
    `SELECT ${COUNTED} FROM held_keys
      WHERE consumer = ? AND ordering_key = ? AND due_at <= UTC_TIMESTAMP(6) FOR UPDATE`,
    [consumer, bytesOf(key)],
  );
  return rows.map((row) => ({ ...row, key }))[0];
}

/** Writes down that a process begins with the first message of a key. */
export async function addBegun(tx: Transaction, consumer: string, key: string): Promise<void> {
  await withOwnOptions(tx).execute(
    'UPDATE held_keys SET begun = LEAST(begun, 1000000) + 1 WHERE consumer = ? AND ordering_key = ?',
    [consumer, bytesOf(key)],
  );
}

export interface Head extends DeadMessage {
  readonly seq: string;
  readonly id: string;
}

/**
 * The first message of a key, by m.seq: a bare seq would be the text of the same name, where 10
 * comes before 9. The key's row is locked, so that nobody takes it away.
 */
export async function headOf(tx: Transaction, consumer: string, key: string): Promise<Head | undefined> {
  const [[row]] = await withOwnOptions(tx).execute<(RowDataPacket & Omit<Head, 'id'> & { id: Buffer })[]>(
    `SELECT CAST(m.seq AS CHAR) AS seq, m.message_id AS id, m.routing_key AS routingKey, m.properties, m.body
       FROM held_messages AS m FORCE INDEX (held_messages_key) WHERE m.consumer = ? AND m.ordering_key = ?
      ORDER BY m.seq LIMIT 1`,
    [consumer, bytesOf(key)],
  );
  return row === undefined ? undefined : { ...row, id: row.id.toString('utf8') };
}

/**
 * Takes the first message away, and makes the next one due or ends the key's hold. `awaken` is due
 * after the commit.
 */
export async function dropHead(tx: Transaction, consumer: string, key: string, seq: string): Promise<void> {
  await withOwnOptions(tx).execute('DELETE FROM held_messages WHERE seq = ?', [seq]);
  if ((await headOf(tx, consumer, key)) === undefined) {
    await dropKey(tx, consumer, key);
    return;
  }
  await withOwnOptions(tx).execute(
    `UPDATE held_keys SET begun = 0, attempts = 0, first_failed_at = NULL, dead_letter = NULL, due_at = UTC_TIMESTAMP(6)
      WHERE consumer = ? AND ordering_key = ?`,
    [consumer, bytesOf(key)],
  );
}

export async function dropKey(tx: Transaction, consumer: string, key: string): Promise<undefined> {
  await withOwnOptions(tx).execute('DELETE FROM held_keys WHERE consumer = ? AND ordering_key = ?', [
    consumer,
    bytesOf(key),
  ]);
}

/**
 * Gives a row in held_keys to each of these keys that has messages and none: they came while it was
 * being deleted. Without keys, to all of the consumer's: a process may have died just before it
 * looked. Then it also makes those due that wait in vain.
 */
export async function awaken(pool: Pool, consumer: string, keys?: ReadonlySet<string>): Promise<void> {
  if (keys?.size === 0) return;
  if (keys === undefined) await resume(pool, consumer);
  await transaction(pool, async (tx) => {
    const [orphans] = await withOwnOptions(tx).query<(RowDataPacket & { key: Buffer })[]>(
      `SELECT DISTINCT m.ordering_key AS \`key\` FROM held_messages AS m FORCE INDEX (held_messages_key)
         LEFT JOIN held_keys AS k ON k.consumer = m.consumer AND k.ordering_key = m.ordering_key
        WHERE m.consumer = ? AND k.consumer IS NULL ${keys === undefined ? '' : 'AND m.ordering_key IN (?)'}`,
      keys === undefined ? [asBytes(consumer)] : [asBytes(consumer), [...keys].map(bytesOf)],
    );
    for (const { key } of orphans) await addKey(tx, consumer, textOf(key), { attempts: 0, inMs: 0 });
  });
}

/** Keys of one look. */
const RESUMED = 100;

interface InVain extends RowDataPacket {
  readonly key: Buffer;
  readonly letter: string | null;
  readonly head: Buffer | null;
}

/**
 * Makes the keys due that wait for no decision, or for one that cannot come, because somebody has
 * changed rows: the dead letter is another consumer's or another message's than the first of the
 * key, or is marked as replayed. To try a message again loses nothing. A plain read, and an update
 * by primary key that finds the key as it was read.
 */
async function resume(pool: Pool, consumer: string): Promise<void> {
  await transaction(pool, async (tx) => {
    const [found] = await withOwnOptions(tx).execute<InVain[]>(
      `SELECT k.ordering_key AS \`key\`, CAST(k.dead_letter AS CHAR) AS letter, d.id AS there, d.state, d.consumer, d.message_id AS message,
              (SELECT m.message_id FROM held_messages AS m FORCE INDEX (held_messages_key)
                WHERE m.consumer = k.consumer AND m.ordering_key = k.ordering_key ORDER BY m.seq LIMIT 1) AS head
         FROM held_keys AS k FORCE INDEX (held_keys_due) LEFT JOIN dead_letters AS d ON d.id = k.dead_letter
        WHERE k.consumer = ? AND k.due_at IS NULL
       HAVING letter IS NULL OR (there IS NOT NULL AND (state = 'replayed' OR consumer <> ? OR (message IS NOT NULL AND NOT message <=> head)))
        LIMIT ${RESUMED}`,
      [consumer, consumer],
    );
    for (const { key, letter, head } of found) {
      // Its next dead letter would have another id again.
      if (head !== null && !isUtf8(head)) continue;
      await withOwnOptions(tx).execute(
        `UPDATE held_keys SET begun = 0, attempts = 0, first_failed_at = NULL, dead_letter = NULL, due_at = UTC_TIMESTAMP(6)
          WHERE consumer = ? AND ordering_key = ? AND due_at IS NULL AND dead_letter <=> ?`,
        [consumer, key, letter],
      );
    }
  });
}
