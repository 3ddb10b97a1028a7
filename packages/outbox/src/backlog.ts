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

/** What nothing repairs by itself, because somebody may have meant it, or because the relay may not. */
export interface OutboxProblem {
  readonly code: 'ONCEBOX_PARTITION_MISSING' | 'ONCEBOX_DUE_TOO_LATE';
  readonly what: string;
  /** Mends it. */
  readonly command: string;
}

/** Hours. A relay postpones by minutes. */
const LATE_HOURS = 24;
const LATE_SHOWN = 10;

// Behind the moment in outbox_waiting_due, a probe a partition.
const LATE = Array.from(
  { length: PARTITIONS },
  (_, partition) => `(SELECT seq, due_at FROM outbox_waiting FORCE INDEX (outbox_waiting_due)
    WHERE partition_id = ${partition} AND due_at > TIMESTAMPADD(HOUR, ${LATE_HOURS}, UTC_TIMESTAMP(6)) LIMIT ${LATE_SHOWN})`,
).join(' UNION ALL ');

/** For `oncebox status` and the relay's log. Plain reads of a few index entries. */
export async function readOutboxProblems(pool: Pool): Promise<readonly OutboxProblem[]> {
  const problems: OutboxProblem[] = [];
  const missing = await missingPartitions(pool);
  if (missing.length > 0) {
    problems.push({
      code: 'ONCEBOX_PARTITION_MISSING',
      what: `outbox_partition has no row for the partitions ${missing.join(', ')}: their messages are not sent until a relay that may insert there has put it back`,
      command: 'oncebox migrate',
    });
  }
  const [late] = await pool.query<(RowDataPacket & { id: string })[]>(
    `SELECT o.id FROM (${LATE}) AS late STRAIGHT_JOIN outbox AS o FORCE INDEX (PRIMARY) ON o.seq = late.seq LIMIT ${LATE_SHOWN}`,
  );
  if (late.length > 0) {
    problems.push({
      code: 'ONCEBOX_DUE_TOO_LATE',
      what: `Held messages are due in more than ${LATE_HOURS} hours (due_at in outbox_waiting), and their keys wait with them`,
      command: `oncebox outbox retry ${late.map(({ id }) => id).join(' ')}`,
    });
  }
  return problems;
}

/** The partitions that have no row to lock. */
export async function missingPartitions(pool: Pool): Promise<readonly number[]> {
  const [rows] = await pool.query<(RowDataPacket & { p: number })[]>('SELECT partition_id AS p FROM outbox_partition');
  const present = new Set(rows.map(({ p }) => p));
  return Array.from({ length: PARTITIONS }, (_, partition) => partition).filter((partition) => !present.has(partition));
}
