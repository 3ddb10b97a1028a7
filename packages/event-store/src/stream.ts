import type { Lineage } from '@oncebox/message';
import { assertTransaction, isDuplicateKey, type Transaction, withOwnOptions } from '@oncebox/mysql';
import type { ResultSetHeader, RowDataPacket } from 'mysql2/promise';
import { type Aggregate, type Event, fold, type Recorded, type Stream } from './aggregate.ts';
import { EventStoreError, VersionConflictError } from './errors.ts';
import { encodeLineage, type Reader, readEvents } from './events.ts';
import { readSnapshot, writeSnapshot } from './snapshots.ts';

/**
 * A stream as it is now: its snapshot, if it has one, and what happened since. A stream without events has version 0 and the initial
 * state. Nothing is locked: an append to it may meet a VersionConflictError.
 *
 * @throws EventStoreError ONCEBOX_UNREADABLE_EVENT
 */
export async function load<State, E extends Event>(
  reader: Reader,
  aggregate: Aggregate<State, E>,
  id: string,
): Promise<Stream<State>> {
  const snapshot = await readSnapshot(reader, aggregate, id);
  return fold(aggregate, id, await readEvents(reader, aggregate, id, snapshot?.version), snapshot);
}

/**
 * `load` under the stream's lock, which is held to the end of the transaction: an append to it meets no conflict. For whoever has nobody
 * to ask when there is one, such as the handler of a message. A stream that does not exist yet cannot be locked.
 *
 * @throws DatabaseError ONCEBOX_NOT_A_TRANSACTION; EventStoreError ONCEBOX_UNREADABLE_EVENT
 */
export async function loadForUpdate<State, E extends Event>(
  tx: Transaction,
  aggregate: Aggregate<State, E>,
  id: string,
): Promise<Stream<State>> {
  assertTransaction(tx);
  await withOwnOptions(tx).execute<RowDataPacket[]>(
    'SELECT version FROM event_streams WHERE category = ? AND id = ? FOR UPDATE',
    [aggregate.category, id],
  );
  return await load(tx, aggregate, id);
}

/**
 * Appends events to a stream if it is still as it was loaded: all of them or none. The stream's row is locked from then on, so that a
 * message about them that is added next (`outbox.add` on the same transaction) has its place in the order before the next append can begin.
 *
 * @param stream As `load` or a previous `append` gave it; its version is the expected one.
 * @returns the stream with the events.
 * @throws VersionConflictError when somebody else has appended to it. Roll back, load and decide again.
 * @throws EventStoreError ONCEBOX_INVALID_EVENT for an event that its own parser would not read again. Before anything is written.
 * @throws DatabaseError ONCEBOX_NOT_A_TRANSACTION for a pool: the events would not be atomic with what follows from them.
 */
export async function append<State, E extends Event>(
  tx: Transaction,
  aggregate: Aggregate<State, E>,
  stream: Stream<State>,
  events: readonly E[],
  lineage: Lineage = {},
): Promise<Stream<State>> {
  assertTransaction(tx);
  if (events.length === 0) return stream;
  const texts = events.map(({ data }) => JSON.stringify(data));
  const parsed = events.map(({ type }, index) => checked(aggregate, type, texts[index] ?? ''));
  await advance(tx, aggregate.category, stream, events.length);
  const occurredAt = await databaseNow(tx);
  const recorded = parsed.map((event, index): Recorded<E> => {
    return { ...event, version: stream.version + index + 1, occurredAt, lineage };
  });
  // One at a time, as there are few: a statement for all of them would be another prepared
  // statement for each number.
  for (const [index, { type, version }] of recorded.entries()) {
    await withOwnOptions(tx).execute(
      `INSERT INTO events (category, stream_id, version, type, data, lineage, occurred_at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
      [aggregate.category, stream.id, version, type, texts[index] ?? '', encodeLineage(lineage), occurredAt],
    );
  }
  const appended = fold(aggregate, stream.id, recorded, stream);
  await writeSnapshot(tx, aggregate, stream.version, appended);
  return appended;
}

/** As it will be read again: what JSON or the parser makes of it now, it must not make of it only in a later replay. */
function checked<State, E extends Event>({ category, event }: Aggregate<State, E>, type: string, text: string): E {
  try {
    return event.parse({ type, data: JSON.parse(text) });
  } catch (cause) {
    throw new EventStoreError('ONCEBOX_INVALID_EVENT', `${category}: its parser would not read this ${type} again`, {
      cause,
    });
  }
}

/**
 * The one place where two writers meet. The UPDATE compares and locks at once, as the primary key does for a stream that begins; to find
 * the clash by the primary key of `events` would leave the loser with some of its rows written.
 */
async function advance(tx: Transaction, category: string, { id, version }: Stream<unknown>, by: number): Promise<void> {
  const conflict = () => new VersionConflictError(category, id, version);
  if (version === 0) {
    await withOwnOptions(tx)
      .execute('INSERT INTO event_streams (category, id, version) VALUES (?, ?, ?)', [category, id, by])
      .catch((error: unknown) => {
        throw isDuplicateKey(error) ? conflict() : error;
      });
    return;
  }
  const [{ affectedRows }] = await withOwnOptions(tx).execute<ResultSetHeader>(
    'UPDATE event_streams SET version = ? WHERE category = ? AND id = ? AND version = ?',
    [version + by, category, id, version],
  );
  if (affectedRows !== 1) throw conflict();
}

/** Asked for rather than left to a column's default, because the state may depend on it. */
async function databaseNow(tx: Transaction): Promise<Date> {
  const [[row]] = await withOwnOptions(tx).query<(RowDataPacket & { now: Date })[]>('SELECT UTC_TIMESTAMP(3) AS now');
  if (row === undefined) throw new Error('SELECT without a row');
  return row.now;
}
