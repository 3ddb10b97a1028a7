import type { Pool, RowDataPacket } from 'mysql2/promise';
import { transaction } from './transaction.ts';

/** A table that has a row in `retention`, by which its cleaners take turns. */
export interface Retained {
  readonly table: string;
  /** The columns of its primary key. */
  readonly key: readonly string[];
  /** An indexed DATETIME(6) in UTC, set by the database's clock. */
  readonly age: string;
}

const BATCH = 500;

/**
 * Deletes the rows of a table that are older than `keepHours`, in small transactions, and writes down how far back the table
 * remembers from then on.
 *
 * One cleaner at a time: the table's row in `retention` is its lock, and who finds it taken does nothing. The oldest rows are
 * read through the index on age without a lock, and deleted by primary key, so at READ COMMITTED a cleaner locks only rows that no writer
 * inserts any more. A `DELETE … WHERE age < ? LIMIT` would lock index ranges, and deadlock with the writers.
 *
 * @param signal ends it between two batches.
 * @returns how many rows went.
 */
export async function deleteExpired(
  pool: Pool,
  { table, key, age }: Retained,
  keepHours: number,
  signal: AbortSignal,
): Promise<number> {
  let deleted = 0;
  for (let last = BATCH; last === BATCH && !signal.aborted; deleted += last) {
    last = await transaction(pool, async (tx) => {
      const [locked] = await tx.query<RowDataPacket[]>(
        'SELECT name FROM retention WHERE name = ? FOR UPDATE SKIP LOCKED',
        [table],
      );
      if (locked.length === 0) return 0;
      const [[clock]] = await tx.query<(RowDataPacket & { limit: string })[]>(
        'SELECT CAST(TIMESTAMPADD(SECOND, ?, UTC_TIMESTAMP(6)) AS CHAR) AS `limit`',
        [-Math.round(keepHours * 3600)],
      );
      const limit = clock?.limit ?? '';
      const [rows] = await tx.query<RowDataPacket[]>('SELECT ?? FROM ?? WHERE ?? < ? ORDER BY ?? LIMIT ?', [
        key,
        table,
        age,
        limit,
        age,
        BATCH,
      ]);
      if (rows.length === 0) return 0;
      await tx.query('UPDATE retention SET forgotten_before = ? WHERE name = ?', [limit, table]);
      const keys = rows.map((row) => key.map((column) => row[column]));
      await tx.query('DELETE FROM ?? WHERE (??) IN (?)', [table, key, keys]);
      return rows.length;
    });
  }
  return deleted;
}
