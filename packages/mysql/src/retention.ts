import { setTimeout as delay } from 'node:timers/promises';
import type { Pool, RowDataPacket } from 'mysql2/promise';
import { asBytes } from './as-bytes.ts';
import { isDuplicateKey } from './errors.ts';
import type { Transaction } from './handle.ts';
import { transaction } from './transaction.ts';

/** A table that has a row in `retention`, by which its cleaners take turns. */
export interface Retained {
  readonly table: string;
  /** The columns of its primary key. */
  readonly key: readonly string[];
  /** An indexed DATETIME(6) in UTC, set by the database's clock. */
  readonly age: string;
  /**
   * What must hold of a row beside its age, as constant SQL in which each `?` is the moment before
   * which rows are old. A row that stays does not hold up those behind it.
   */
  readonly condition?: string;
}

export interface ForgetSettings {
  readonly keepHours: number;
  /** Ends it, after the batch under way. */
  readonly signal: AbortSignal;
  readonly logger: {
    info(fields: object, message: string): void;
    warn(fields: object, message: string): void;
  };
}

const BATCH = 500;
/** Milliseconds between two passes, on average. */
const PERIOD_MS = 5 * 60_000;

/**
 * Deletes the expired rows of a table, now and from time to time. Never rejects: a pass that failed
 * is logged.
 *
 * @param retained several for the parts of one table, which have one lock: one after the other.
 */
export async function keepDeleting(
  pool: Pool,
  retained: Retained | readonly Retained[],
  { keepHours, signal, logger }: ForgetSettings,
): Promise<void> {
  while (!signal.aborted) {
    for (const each of [retained].flat()) {
      try {
        if (!(await isDue(pool, each, keepHours))) continue;
        const deleted = await deleteExpired(pool, each, keepHours, signal);
        if (deleted > 0)
          logger.info({}, `Deleted ${deleted} rows of ${each.table} that were older than ${keepHours} h`);
      } catch (err) {
        logger.warn({ err }, `Could not delete old rows of ${each.table}; they stay until a later pass`);
      }
    }
    // By chance, so that processes that started together do not clean together. It rejects when the
    // signal ends it.
    await delay(PERIOD_MS * (0.5 + Math.random()), undefined, { signal }).catch(() => undefined);
  }
}

/**
 * Deletes the rows of a table that are older than `keepHours`, in small transactions, and writes
 * down how far back the table remembers from then on.
 *
 * One cleaner at a time: the table's row in `retention` is its lock, and who finds it taken does
 * nothing. The oldest rows are read through the index on age without a lock, and deleted by primary
 * key, so at READ COMMITTED a cleaner locks only rows that no writer inserts any more. A `DELETE …
 * WHERE age < ? LIMIT` would lock index ranges, and deadlock with the writers. Each batch begins at
 * the age where the last one ended, so rows that must stay are read once.
 *
 * @param signal ends it between two batches.
 * @returns how many rows went.
 */
export async function deleteExpired(
  pool: Pool,
  retained: Retained,
  keepHours: number,
  signal: AbortSignal,
): Promise<number> {
  let deleted = 0;
  let from: string | undefined;
  while (!signal.aborted) {
    const batch = await transaction(pool, (tx) => deleteBatch(tx, retained, keepHours, from));
    const reachedBefore = from;
    deleted += batch.deleted;
    from = batch.reached;
    // What was locked stays for a later pass. A batch that stands still would be read for ever.
    if (batch.read < BATCH || (batch.deleted === 0 && batch.reached === reachedBefore)) break;
  }
  return deleted;
}

/**
 * Whether there is anything to do, which is seldom: a plain read, where a batch takes the table's
 * lock and commits.
 */
async function isDue(pool: Pool, { table, age, condition = 'TRUE' }: Retained, keepHours: number): Promise<boolean> {
  const limit = `TIMESTAMPADD(SECOND, -${Math.round(keepHours * 3600)}, UTC_TIMESTAMP(6))`;
  const [[row]] = await pool.query<(RowDataPacket & { due: number })[]>(
    `SELECT NOT EXISTS (SELECT 1 FROM retention WHERE name = ?)
         OR EXISTS (SELECT 1 FROM ?? WHERE ?? < ${limit} AND ${condition.replaceAll('?', limit)}) AS due`,
    [asBytes(table), table, age],
  );
  return row?.due === 1;
}

/** @param from the age where the batch before ended. @returns where this one did. */
async function deleteBatch(
  tx: Transaction,
  retained: Retained,
  keepHours: number,
  from: string | undefined,
): Promise<{ readonly read: number; readonly deleted: number; readonly reached: string | undefined }> {
  const { table, key, age, condition = 'TRUE' } = retained;
  if (!(await lockTable(tx, table))) return { read: 0, deleted: 0, reached: from };
  const [[clock]] = await tx.query<(RowDataPacket & { limit: string })[]>(
    'SELECT CAST(TIMESTAMPADD(SECOND, ?, UTC_TIMESTAMP(6)) AS CHAR) AS `limit`',
    [-Math.round(keepHours * 3600)],
  );
  const limit = clock?.limit ?? '';
  const limits = Array.from(condition.matchAll(/\?/g), () => limit);
  const [rows] = await tx.query<RowDataPacket[]>(
    `SELECT ??, CAST(?? AS CHAR) AS age_as_text FROM ??
      WHERE ?? < ? AND ${from === undefined ? '' : '?? >= ? AND'} ${condition} ORDER BY ?? LIMIT ?`,
    [key, age, table, age, limit, ...(from === undefined ? [] : [age, from]), ...limits, age, BATCH],
  );
  if (rows.length === 0) return { read: 0, deleted: 0, reached: from };
  // Never back: what was deleted by a shorter retention stays unknown after a longer one is set.
  await tx.query('UPDATE retention SET forgotten_before = GREATEST(COALESCE(forgotten_before, ?), ?) WHERE name = ?', [
    limit,
    limit,
    table,
  ]);
  const deleted = await deleteRows(tx, retained, rows, [limit, ...limits]);
  const reached = String(rows.at(-1)?.['age_as_text']);
  // Nothing can be compared with '0000-00-00', which a row written by hand may have.
  return { read: rows.length, deleted, reached: reached < '1000' ? from : reached };
}

/**
 * The table's row in `retention`, if no other cleaner has it. One that somebody deleted is put
 * back: how far back the table remembers is lost with it, so nothing from before now counts as
 * remembered.
 */
async function lockTable(tx: Transaction, table: string): Promise<boolean> {
  const lock = async (): Promise<boolean> => {
    const [rows] = await tx.query<RowDataPacket[]>('SELECT name FROM retention WHERE name = ? FOR UPDATE SKIP LOCKED', [
      table,
    ]);
    return rows.length > 0;
  };
  if (await lock()) return true;
  const [there] = await tx.query<RowDataPacket[]>('SELECT name FROM retention WHERE name = ?', [table]);
  if (there.length > 0) return false;
  try {
    await tx.query('INSERT INTO retention (name, forgotten_before) VALUES (?, UTC_TIMESTAMP(6))', [table]);
  } catch (error) {
    if (!isDuplicateKey(error)) throw error;
  }
  return await lock();
}

/**
 * Deletes those of `found` that are still to be deleted: an operator may have asked for one of them
 * meanwhile. It locks them first and passes over what is locked, so it waits for nobody, and nobody
 * for what it does not delete.
 */
async function deleteRows(
  tx: Transaction,
  { table, key, age, condition = 'TRUE' }: Retained,
  found: readonly RowDataPacket[],
  limits: readonly string[],
): Promise<number> {
  const keysOf = (rows: readonly RowDataPacket[]) =>
    rows.map((row) => key.map((column) => (typeof row[column] === 'string' ? asBytes(row[column]) : row[column])));
  const [rows] = await tx.query<RowDataPacket[]>(
    `SELECT ?? FROM ?? FORCE INDEX (PRIMARY) WHERE (??) IN (?) AND ?? < ? AND ${condition} FOR UPDATE SKIP LOCKED`,
    [key, table, key, keysOf(found), age, ...limits],
  );
  if (rows.length === 0) return 0;
  const [column = ''] = key;
  const numbers = rows.map((row) => row[column]).filter((value) => typeof value === 'number');
  if (key.length === 1 && numbers.length === rows.length) {
    // The numbers lead the join. Given as a list that is long beside the table, MariaDB reads all
    // of the table, whatever index is forced, and so waits for rows that an operator has locked.
    await tx.query(
      `DELETE t FROM JSON_TABLE(?, '$[*]' COLUMNS (number BIGINT UNSIGNED PATH '$' ERROR ON ERROR)) AS gone
         STRAIGHT_JOIN ?? AS t FORCE INDEX (PRIMARY) ON t.?? = gone.number`,
      [JSON.stringify(numbers), table, column],
    );
  } else {
    await tx.query('DELETE FROM ?? WHERE (??) IN (?)', [table, key, keysOf(rows)]);
  }
  return rows.length;
}

/**
 * Seconds since the oldest row of a table was made, by the database's clock; null in an empty one.
 * One probe of the index on age.
 */
export async function oldestSeconds(
  db: Pick<Transaction, 'query'>,
  { table, age }: Pick<Retained, 'table' | 'age'>,
): Promise<number | null> {
  const [[row]] = await db.query<(RowDataPacket & { seconds: number | null })[]>(
    'SELECT TIMESTAMPDIFF(SECOND, MIN(??), UTC_TIMESTAMP(6)) AS seconds FROM ??',
    [age, table],
  );
  return row?.seconds ?? null;
}
