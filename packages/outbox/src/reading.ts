import type { Transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import type { OutboxState } from './inspect.ts';
import { knownTime, PARTITIONS } from './row.ts';

type Unpublished = Exclude<OutboxState, 'published'>;

/** What a gauge may ask of an outbox every few seconds, however much is in it. */
export interface OutboxReading {
  /** By type and state, of the first rows of each partition. */
  readonly messages: readonly {
    readonly type: string;
    readonly state: Unpublished;
    readonly count: number;
    /** Since the oldest of them was written, by the database's clock. */
    readonly oldestSeconds: number;
  }[];
  /** The states in which there are more rows than were counted. */
  readonly capped: readonly Unpublished[];
  /** Since the longest kept row was published; null while none is kept. */
  readonly oldestPublishedSeconds: number | null;
}

const STATES: Readonly<Record<Unpublished, readonly [state: string, held: 0 | 1]>> = {
  pending: ['pending', 0],
  held: ['pending', 1],
  parked: ['parked', 1],
  released: ['parked', 0],
};

const eachPartition = (branch: (partition: number) => string): string[] =>
  Array.from({ length: PARTITIONS }, (_, p) => branch(p));

// The first rows of each partition and state, by outbox_work, and the types and times of these alone. An index on state and type would
// count by type exactly, and every writer and every settling would pay for it: see
// docs/decisions/0012-metrics.md. The column's collation ignores trailing spaces, hence the length.
const FIRST_ROWS = Object.values(STATES).flatMap(([state, held]) =>
  eachPartition(
    (partition) => `(SELECT seq FROM outbox FORCE INDEX (outbox_work)
      WHERE state = '${state}' AND held = ${held} AND partition_id = ${partition} ORDER BY seq LIMIT ?)`,
  ),
);
const READ = `SELECT o.type, o.state, o.held, o.partition_id, COUNT(*) AS count,
    MAX(TIMESTAMPDIFF(MICROSECOND, ${knownTime('o.created_at')}, UTC_TIMESTAMP(6))) / 1000000 AS oldestSeconds
  FROM (${FIRST_ROWS.join(' UNION ALL ')}) AS first STRAIGHT_JOIN outbox AS o FORCE INDEX (PRIMARY) ON o.seq = first.seq
  GROUP BY o.type, OCTET_LENGTH(o.type), o.state, o.held, o.partition_id`;

// What retention deletes next, an index probe a partition.
const OLDEST_PUBLISHED = `SELECT MAX(TIMESTAMPDIFF(SECOND, ${knownTime('published_at')}, UTC_TIMESTAMP(6))) AS seconds FROM (${eachPartition(
  (partition) => `(SELECT published_at FROM outbox FORCE INDEX (outbox_work)
    WHERE state = 'published' AND held = 0 AND partition_id = ${partition} ORDER BY seq LIMIT 1)`,
).join(' UNION ALL ')}) AS firsts`;

interface Row extends RowDataPacket {
  readonly type: string;
  readonly state: string;
  readonly held: number;
  readonly count: number;
  readonly oldestSeconds: string | null;
}

/**
 * Reads up to `countUpTo` rows of each state, a sixteenth of that in each partition: the oldest ones, so that the age of the oldest is
 * right in a backlog of any size. Plain reads that lock nothing. For the relay's user, or the service's.
 */
export async function readOutbox(db: Pick<Transaction, 'query'>, countUpTo: number): Promise<OutboxReading> {
  const limit = Math.ceil(countUpTo / PARTITIONS);
  const [rows] = await db.query<Row[]>(
    READ,
    FIRST_ROWS.map(() => limit),
  );
  const [[published]] = await db.query<(RowDataPacket & { seconds: number | null })[]>(OLDEST_PUBLISHED);
  const capped = new Set<Unpublished>();
  const messages = new Map<string, { type: string; state: Unpublished; count: number; oldestSeconds: number }>();
  const perPartition = new Map<string, number>();
  for (const row of rows) {
    const state = stateOf(row);
    const place = `${state} ${row['partition_id']}`;
    const inPartition = (perPartition.get(place) ?? 0) + row.count;
    perPartition.set(place, inPartition);
    if (inPartition >= limit) capped.add(state);
    const key = `${state} ${row.type}`;
    const sum = messages.get(key) ?? { type: row.type, state, count: 0, oldestSeconds: 0 };
    sum.count += row.count;
    sum.oldestSeconds = Math.max(sum.oldestSeconds, Number(row.oldestSeconds));
    messages.set(key, sum);
  }
  return { messages: [...messages.values()], capped: [...capped], oldestPublishedSeconds: published?.seconds ?? null };
}

const stateOf = ({ state, held }: Row): Unpublished =>
  state === 'pending' ? (held === 1 ? 'held' : 'pending') : held === 1 ? 'parked' : 'released';
