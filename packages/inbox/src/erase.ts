import { asBytes, type Pool, transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { awaken, dropKey, headOf, reschedule } from './ordered/store.ts';
import type { DeadLetterState } from './replay.ts';
import { subjectOf } from './subject.ts';

// What an inbox stores of one key, and how it goes. processed_messages has ids alone, and keeps
// them.

export interface LetterOfKey {
  readonly id: string;
  readonly messageId: string | null;
  /** Of the message. */
  readonly type: string | null;
  readonly state: DeadLetterState;
}

/** Dead letters that one statement reads through. */
const PAGE = 1_000;

/**
 * The dead letters whose message has this key, in pages; a page may be empty. The key is in the
 * headers alone, so this reads the properties of every dead letter once. The server looks for the
 * key's text, and what it finds is read as JSON here: a row that an operator has edited may be
 * none, which JSON_EXTRACT would take for an error of the whole statement.
 */
export async function* findLettersOf(pool: Pool, key: string): AsyncGenerator<readonly LetterOfKey[]> {
  const text = JSON.stringify(key).slice(1, -1);
  for (let after = '0'; ; ) {
    const [[page]] = await pool.query<(RowDataPacket & { last: string | null })[]>(
      `SELECT CAST(MAX(id) AS CHAR) AS last
         FROM (SELECT id FROM dead_letters FORCE INDEX (PRIMARY) WHERE id > ? ORDER BY id LIMIT ${PAGE}) AS page`,
      [BigInt(after)],
    );
    const last = page?.last ?? undefined;
    if (last === undefined) return;
    const [rows] = await pool.query<
      (Omit<LetterOfKey, 'messageId'> & RowDataPacket & { messageId: Buffer | null; properties: string })[]
    >(
      `SELECT CAST(d.id AS CHAR) AS id, d.message_id AS messageId, d.type, d.state, d.properties
         FROM dead_letters AS d FORCE INDEX (PRIMARY)
        WHERE d.id > ? AND d.id <= ? AND LOCATE(?, CAST(d.properties AS BINARY)) > 0 ORDER BY d.id`,
      [BigInt(after), BigInt(last), asBytes(text)],
    );
    yield rows
      .filter(({ properties }) => subjectOf(properties) === key)
      .map(({ id, messageId, type, state }) => ({ id, messageId: messageId?.toString('utf8') ?? null, type, state }));
    after = last;
  }
}

/** What an erasure did with a dead letter, or the state for which it left the letter alone. */
export type EraseOutcome = 'erased' | 'dead' | 'replay';

/**
 * Deletes dead letters that were replayed or discarded.
 *
 * @param ids in hundreds: they change in one transaction.
 * @param discard also those that are dead or wait for a replay: they are given up.
 */
export async function eraseDeadLetters(
  pool: Pool,
  ids: readonly string[],
  { discard }: { discard: boolean },
): Promise<ReadonlyMap<string, EraseOutcome>> {
  const outcomes = new Map<string, EraseOutcome>(ids.map((id) => [id, 'erased']));
  if (ids.length === 0) return outcomes;
  await transaction(pool, async (tx) => {
    // Locked before it is looked at: a worker may be sending one.
    const [rows] = await tx.query<(RowDataPacket & { id: string; state: DeadLetterState })[]>(
      `SELECT CAST(d.id AS CHAR) AS id, d.state FROM dead_letters AS d FORCE INDEX (PRIMARY)
        WHERE d.id IN (?) ORDER BY d.id FOR UPDATE`,
      [ids.map(BigInt)],
    );
    const left = rows.filter(({ state }) => !discard && (state === 'dead' || state === 'replay'));
    for (const { id, state } of left) outcomes.set(id, state === 'dead' ? 'dead' : 'replay');
    const gone = rows.filter((row) => !left.includes(row));
    if (gone.length === 0) return;
    await tx.query('DELETE FROM dead_letters WHERE id IN (?)', [gone.map(({ id }) => BigInt(id))]);
  });
  return outcomes;
}

export interface HeldOfKey {
  readonly consumer: string;
  readonly messageId: string;
}

/**
 * What ordered consumers have waiting of this key. The index begins with the consumer, hence the
 * names first.
 */
export async function findHeldOf(pool: Pool, key: string): Promise<readonly HeldOfKey[]> {
  const [rows] = await pool.query<(RowDataPacket & { consumer: string; messageId: Buffer })[]>(
    `SELECT m.consumer, m.message_id AS messageId FROM (SELECT DISTINCT consumer FROM held_messages) AS c
       STRAIGHT_JOIN held_messages AS m FORCE INDEX (held_messages_key)
         ON m.consumer = c.consumer AND m.ordering_key = ? ORDER BY m.consumer, m.seq`,
    [asBytes(key)],
  );
  return rows.map(({ consumer, messageId }) => ({ consumer, messageId: messageId.toString('utf8') }));
}

/**
 * Gives up held messages of one key, and lets the rest of the key go on. Under the lock on the
 * key's row, so that no worker handles one meanwhile.
 */
export async function eraseHeld(pool: Pool, consumer: string, key: string, ids: readonly string[]): Promise<void> {
  await transaction(
    pool,
    async (tx) => {
      await tx.execute('SELECT attempts FROM held_keys WHERE consumer = ? AND ordering_key = ? FOR UPDATE', [
        consumer,
        asBytes(key),
      ]);
      const before = await headOf(tx, consumer, key);
      await tx.query('DELETE FROM held_messages WHERE consumer = ? AND ordering_key = ? AND message_id IN (?)', [
        asBytes(consumer),
        asBytes(key),
        ids.map(asBytes),
      ]);
      const head = await headOf(tx, consumer, key);
      if (head === undefined) await dropKey(tx, consumer, key);
      else if (head.seq !== before?.seq) await reschedule(tx, consumer, key, { attempts: 0, inMs: 0 });
    },
    // A handler may have the lock, until its deadline.
    { timeoutMs: 90_000 },
  );
  await awaken(pool, consumer, new Set([key]));
}
