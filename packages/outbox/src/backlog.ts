import type { Pool } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { knownTime, PARTITIONS } from './row.ts';

/** What is not published. A count ends at `countUpTo`: counting a million takes as long as reading them. */
export interface Backlog {
  readonly pending: number;
  readonly held: number;
  readonly parked: number;
  /** Parked, and their keys go on. */
  readonly released: number;
  /** Seconds since the oldest pending or held row was written, by the database's clock; null when there is none. */
  readonly oldestSeconds: number | null;
}

const count = (state: string, held: number): string =>
  `(SELECT COUNT(*) FROM (SELECT 1 FROM outbox FORCE INDEX (outbox_work)
     WHERE state = '${state}' AND held = ${held} LIMIT ?) AS counted)`;

// The first row of each partition, by an index probe each. It may not be the very oldest, as rows commit out of the order of
// `seq`, but the oldest is hardly older; MIN(created_at) over all would read the whole backlog.
const FIRST_ROWS = Array.from({ length: PARTITIONS * 2 }, (_, index) => {
  const [partition, held] = [index % PARTITIONS, Math.floor(index / PARTITIONS)];
  return `(SELECT created_at FROM outbox FORCE INDEX (outbox_work)
    WHERE state = 'pending' AND held = ${held} AND partition_id = ${partition} ORDER BY seq LIMIT 1)`;
}).join(' UNION ALL ');

const BACKLOG = `SELECT ${count('pending', 0)} AS pending, ${count('pending', 1)} AS held,
  ${count('parked', 1)} AS parked, ${count('parked', 0)} AS released,
  (SELECT MAX(TIMESTAMPDIFF(SECOND, ${knownTime('created_at')}, UTC_TIMESTAMP(6))) FROM (${FIRST_ROWS}) AS firsts) AS oldestSeconds`;

export async function readBacklog(pool: Pool, countUpTo: number): Promise<Backlog> {
  const [[row]] = await pool.query<(Backlog & RowDataPacket)[]>(BACKLOG, Array(4).fill(countUpTo));
  return row ?? { pending: 0, held: 0, parked: 0, released: 0, oldestSeconds: null };
}
