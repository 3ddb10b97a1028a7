import { asBytes, type Pool, type Transaction, transaction } from '@oncebox/mysql';
import { escapeId, type RowDataPacket } from 'mysql2/promise';
import { type Event, fold } from './aggregate.ts';
import { readStreams } from './events.ts';
import type { Projection } from './projection.ts';

/** Streams in one transaction: their writers wait for as long as these take. */
const BATCH = 100;

export interface RebuildProgress {
  /** Streams whose rows have been written. */
  readonly done: number;
  /** Streams that there were when it began. */
  readonly total: number;
  /** Rows that belonged to no stream. */
  readonly removed: number;
}

export interface RebuildOptions {
  /** Begin anew, also when a rebuild was cut short. */
  readonly restart?: boolean;
  /** Called when it begins or goes on, and after each batch. */
  readonly onProgress?: (progress: RebuildProgress) => void;
  /** Ends it after the batch under way; the next rebuild goes on from there. */
  readonly signal?: AbortSignal;
}

/**
 * Writes every row of a projection anew from the events, stream by stream in the order of their ids, while appends go on. Where it
 * has come to is stored with each batch: when it is cut short, the next call goes on from there. Two at once share the work.
 *
 * A stream is written under its lock, and a writer holds that lock from its append to its commit, so neither overwrites the other with
 * something older. Readers see every row all the while, the old one or the new. The alternative, a new table that is filled and then
 * swapped, needs DDL, which no service's user has, and a second way to catch up with writes.
 *
 * @returns how it ended; `undefined` when `signal` ended it.
 * @throws EventStoreError ONCEBOX_UNREADABLE_EVENT; what the projection's `write` throws. The batch is rolled back.
 */
export async function rebuild<State, E extends Event>(
  pool: Pool,
  projection: Projection<State, E>,
  { restart = false, onProgress = () => undefined, signal }: RebuildOptions = {},
): Promise<RebuildProgress | undefined> {
  let run = await transaction(pool, (tx) => begin(tx, projection, restart));
  onProgress(run);
  while (!run.finished) {
    if (signal?.aborted) return undefined;
    run = await transaction(pool, (tx) => step(tx, projection));
    onProgress(run);
  }
  return run;
}

interface Run extends RebuildProgress {
  readonly after: string;
  readonly finished: boolean;
}

async function begin(tx: Transaction, projection: Projection, restart: boolean): Promise<Run> {
  const { name, aggregate } = projection;
  const run = await lockRun(tx, name);
  if (run !== undefined && !run.finished && !restart && (await isWhole(tx, projection, run.after))) return run;
  const [[counted]] = await tx.execute<(RowDataPacket & { total: number })[]>(
    'SELECT COUNT(*) AS total FROM event_streams WHERE category = ?',
    [aggregate.category],
  );
  const total = counted?.total ?? 0;
  await tx.execute(
    `INSERT INTO projection_rebuilds (name, total) VALUES (?, ?)
     ON DUPLICATE KEY UPDATE after_id = '', done = 0, removed = 0, total = VALUES(total),
       started_at = UTC_TIMESTAMP(6), finished_at = NULL`,
    [name, total],
  );
  return { after: '', done: 0, removed: 0, total, finished: false };
}

/**
 * Whether what an earlier run wrote is still there: a table that has been emptied since must be filled from the beginning. In one
 * statement, and so in one view, in which a stream has its row.
 */
async function isWhole(tx: Transaction, { aggregate, table, key }: Projection, after: string): Promise<boolean> {
  const [[row]] = await tx.execute<(RowDataPacket & { streams: number; rows: number })[]>(
    `SELECT (SELECT COUNT(*) FROM event_streams WHERE category = ? AND id <= ?) AS streams,
            (SELECT COUNT(*) FROM ${escapeId(table, true)} WHERE ${escapeId(key, true)} <= ?) AS \`rows\``,
    [aggregate.category, after, after],
  );
  return row !== undefined && row.streams === row.rows;
}

/** Locks its row, so that two rebuilds take turns batch by batch. */
async function lockRun(tx: Transaction, name: string): Promise<Run | undefined> {
  const [[row]] = await tx.execute<(RowDataPacket & Omit<Run, 'finished'> & { finished: number })[]>(
    `SELECT after_id AS after, done, total, removed, finished_at IS NOT NULL AS finished
       FROM projection_rebuilds WHERE name = ? FOR UPDATE`,
    [name],
  );
  return row === undefined ? undefined : { ...row, finished: row.finished === 1 };
}

async function step<State, E extends Event>(tx: Transaction, projection: Projection<State, E>): Promise<Run> {
  const { name, aggregate } = projection;
  const run = await lockRun(tx, name);
  if (run === undefined) throw new Error(`The rebuild of ${name} is gone from projection_rebuilds`);
  if (run.finished) return run;
  const ids = await lockStreams(tx, aggregate.category, run.after);
  const histories = await readStreams(tx, aggregate, ids);
  for (const [id, events] of histories) await projection.write(tx, fold(aggregate, id, events));
  const finished = ids.length < BATCH;
  const after = ids.at(-1) ?? run.after;
  const removed = run.removed + (await removeStray(tx, projection, run.after, finished ? undefined : after));
  const done = run.done + ids.length;
  await tx.execute(
    `UPDATE projection_rebuilds SET after_id = ?, done = ?, removed = ?, finished_at = IF(?, UTC_TIMESTAMP(6), NULL)
      WHERE name = ?`,
    [after, done, removed, finished, name],
  );
  return { after, done, removed, total: run.total, finished };
}

/** In the order of the primary key, as a rebuild beside this one would. A stream that begins behind the cursor writes its row itself. */
async function lockStreams(tx: Transaction, category: string, after: string): Promise<string[]> {
  const [rows] = await tx.execute<(RowDataPacket & { id: string })[]>(
    `SELECT id FROM event_streams WHERE category = ? AND id > ? ORDER BY id LIMIT ${BATCH} FOR UPDATE`,
    [category, after],
  );
  return rows.map(({ id }) => id);
}

/**
 * Deletes rows without a stream. Found by one plain SELECT, whose single view has a stream wherever it has the stream's row; a DELETE
 * with the same condition would see a row that has just been committed, and not yet the stream committed with it.
 *
 * The projection's key may have any collation, and two that compare by bytes cannot be compared
 * with each other. CONVERT gives it the default one of the stream ids' character set (see
 * 0005_exact_keys.sql of the shop), which yields to theirs: the primary key is probed.
 */
async function removeStray<State, E extends Event>(
  tx: Transaction,
  { aggregate, table, key }: Projection<State, E>,
  after: string,
  to: string | undefined,
): Promise<number> {
  const [from, column] = [escapeId(table, true), escapeId(key, true)];
  const [rows] = await tx.execute<(RowDataPacket & { id: string })[]>(
    `SELECT p.${column} AS id FROM ${from} p LEFT JOIN event_streams s
         ON s.category = ? AND s.id = CONVERT(p.${column} USING /*!80000 utf8mb4 */ /*M!100000 ascii */)
      WHERE p.${column} > ? ${to === undefined ? '' : `AND p.${column} <= ?`} AND s.id IS NULL`,
    [aggregate.category, after, ...(to === undefined ? [] : [to])],
  );
  const ids = rows.map(({ id }) => id);
  if (ids.length > 0) await tx.query(`DELETE FROM ${from} WHERE ${column} IN (?)`, [ids.map(asBytes)]);
  return ids.length;
}

/** Every rebuild that was ever begun: one row for each projection. */
export async function readRebuilds(
  db: Pick<Transaction, 'query'>,
): Promise<
  readonly { readonly name: string; readonly done: number; readonly total: number; readonly running: boolean }[]
> {
  const [rows] = await db.query<(RowDataPacket & { name: string; done: number; total: number; running: number })[]>(
    'SELECT name, done, total, finished_at IS NULL AS running FROM projection_rebuilds ORDER BY name',
  );
  return rows.map(({ name, done, total, running }) => ({ name, done, total, running: running === 1 }));
}
