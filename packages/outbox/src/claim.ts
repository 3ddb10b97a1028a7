import { asBytes, type Pool, type Transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { keyOf, type OutboxRow, PARTITIONS } from './row.ts';

const ALL = Array.from({ length: PARTITIONS }, (_, partition) => partition);

/** Partitions that have something to do now. */
export interface Work {
  /** With a row that is ready, or a held one that is due. */
  readonly partitions: readonly number[];
  /** Those of them with a held row that is due. */
  readonly due: ReadonlySet<number>;
  /**
   * Whether all that was ready is less than a pass takes, so that partitions need no shares of it.
   */
  readonly few: boolean;
}

// One index probe a partition and table: the cost does not grow with the backlog, where SELECT
// DISTINCT partition_id walks all of it.
const FIND_WORK = ALL.flatMap((partition) => [
  `(SELECT ${partition} AS p, 0 AS due FROM outbox FORCE INDEX (outbox_work)
     WHERE state = 'pending' AND held = 0 AND partition_id = ${partition} AND seq > ? LIMIT 1)`,
  `(SELECT ${partition} AS p, 1 AS due FROM outbox_waiting
     WHERE partition_id = ${partition} AND due_at <= UTC_TIMESTAMP(6) LIMIT 1)`,
]).join(' UNION ALL ');

/** So many ready rows are not few any more, whatever a pass takes. */
const FEW = 64;

/**
 * The work of a relay that keeps up, in one walk over the few rows that are ready: a tenth of the
 * cost of the 32 probes above, which is most of what a relay costs that has little to do.
 *
 * @param most rows of a pass
 * @returns undefined when there is more than few, or when anything waits, due or not: then it takes
 *   the probes.
 */
export async function findFew(pool: Pool, most: number): Promise<Work | undefined> {
  const limit = Math.min(FEW, most);
  const [rows] = await pool.execute<(RowDataPacket & { p: number | null })[]>(
    `(SELECT partition_id AS p FROM outbox FORCE INDEX (outbox_work) WHERE state = 'pending' AND held = 0 LIMIT ${limit})
     UNION ALL (SELECT NULL FROM outbox_waiting LIMIT 1)`,
  );
  if (rows.length >= limit || rows.some(({ p }) => p === null)) return undefined;
  return { partitions: [...new Set(rows.map(({ p }) => Number(p)))], due: new Set(), few: true };
}

/**
 * @param floors for each partition, the `seq` up to which the caller believes that nothing is
 * pending; '0' to look at all.
 */
export async function findWork(pool: Pool, floors: readonly string[]): Promise<Work> {
  const [rows] = await pool.execute<(RowDataPacket & { p: number; due: number })[]>(FIND_WORK, [...floors]);
  return {
    partitions: [...new Set(rows.map((row) => Number(row.p)))],
    due: new Set(rows.filter((row) => Number(row.due) === 1).map((row) => Number(row.p))),
    few: false,
  };
}

/**
 * Locks up to `share` free ones of `wanted` (ascending), from `start` on and then from the
 * beginning, so that no partition is always last. SKIP LOCKED passes over what another lane or
 * process holds.
 *
 * Two ranges and no ORDER BY: a sort would read, and so lock, every candidate before LIMIT cuts
 * them.
 */
export async function claim(
  tx: Transaction,
  wanted: readonly number[],
  share: number,
  start: number,
): Promise<number[]> {
  const claimed: number[] = [];
  const ranges =
    wanted.length <= share ? [wanted] : [wanted.filter((p) => p >= start), wanted.filter((p) => p < start)];
  for (const range of ranges) {
    const room = share - claimed.length;
    if (range.length === 0 || room === 0) continue;
    const [rows] = await tx.query<(RowDataPacket & { partition_id: number })[]>(
      `SELECT partition_id FROM outbox_partition FORCE INDEX (PRIMARY)
        WHERE partition_id IN (?) LIMIT ? FOR UPDATE SKIP LOCKED`,
      [range, room],
    );
    claimed.push(...rows.map((row) => row.partition_id));
  }
  return claimed;
}

/**
 * Locks one partition, and waits for it where a lane would skip: under constant load it is never
 * free for long, and who skips would starve. A lane gives it back within a pass, which has a
 * deadline.
 */
export async function lockPartition(tx: Transaction, partition: number): Promise<void> {
  await tx.query('SELECT partition_id FROM outbox_partition WHERE partition_id = ? FOR UPDATE', [partition]);
}

export interface Due {
  readonly seq: string;
  readonly aggregatetype: string;
  readonly aggregateid: string;
}

/**
 * Held rows whose time has come, of the partitions that the caller has locked, longest due first.
 */
export async function readDue(tx: Transaction, partitions: readonly number[], limit: number): Promise<Due[]> {
  const [rows] = await tx.query<(RowDataPacket & Due)[]>(
    `SELECT CAST(seq AS CHAR) AS seq, aggregatetype, aggregateid FROM outbox_waiting
      WHERE partition_id IN (?) AND due_at <= UTC_TIMESTAMP(6) ORDER BY due_at LIMIT ?`,
    [partitions, limit],
  );
  return rows;
}

/**
 * With more keys than this due at once, each sends its head alone: the statement below has a part
 * for each.
 */
const CHAINED_KEYS = 50;
/**
 * Held rows of one key in a pass. Each waits for the confirm of the one before, and the whole pass
 * for the last.
 */
const CHAIN = 50;

/** Whether `readInTurn` gives whole chains for these. */
export const isChained = (due: readonly Due[]): boolean => due.length > 0 && due.length <= CHAINED_KEYS;

/**
 * The held rows whose turn it is: of each key whose head is due, the head and what waits right
 * behind it, up to a parked row. Without the rest of the chain, a key that piled up behind a
 * failure would recover at one message a pass.
 */
export async function readInTurn(tx: Transaction, due: readonly Due[]): Promise<string[]> {
  if (!isChained(due)) return due.map(({ seq }) => seq);
  const chains = due.map(
    () => `(SELECT w.seq AS position, CAST(w.seq AS CHAR) AS seq, w.aggregatetype, w.aggregateid, o.state
              FROM outbox_waiting AS w FORCE INDEX (outbox_waiting_key) STRAIGHT_JOIN outbox AS o ON o.seq = w.seq
             WHERE w.aggregateid = ? AND w.aggregatetype = ? ORDER BY w.seq LIMIT ${CHAIN})`,
  );
  const [rows] = await tx.query<(RowDataPacket & Due & { state: string })[]>(
    `${chains.join(' UNION ')} ORDER BY position`,
    due.flatMap(({ aggregateid, aggregatetype }) => [asBytes(aggregateid), asBytes(aggregatetype)]),
  );
  const dueNow = new Set(due.map(({ seq }) => seq));
  const inTurn: string[] = [];
  for (const chain of Map.groupBy(rows, keyOf).values()) {
    const parked = chain.findIndex(({ state }) => state !== 'pending');
    // An entry can be due and not its key's head: an earlier row may have committed late, and
    // failed since.
    if (!dueNow.has(chain[0]?.seq ?? '')) continue;
    inTurn.push(...chain.slice(0, parked === -1 ? undefined : parked).map(({ seq }) => seq));
  }
  return inTurn;
}

/** Those of these entries whose row no longer waits: somebody deleted or settled it by hand. */
export async function readStale(tx: Transaction, due: readonly Due[]): Promise<readonly Due[]> {
  if (due.length === 0) return [];
  const [rows] = await tx.query<(RowDataPacket & { seq: string })[]>(
    "SELECT CAST(seq AS CHAR) AS seq FROM outbox WHERE seq IN (?) AND held = 1 AND state <> 'published'",
    [due.map(({ seq }) => seq)],
  );
  const waiting = new Set(rows.map(({ seq }) => seq));
  return due.filter(({ seq }) => !waiting.has(seq));
}

export interface ReadLimits {
  /** Rows of all partitions together, and as many again of those that are held. */
  readonly rows: number;
  /**
   * Payload bytes of all partitions together. The first row of a partition is read whatever its
   * size.
   */
  readonly bytes: number;
}

/** In the order of the index, so that nothing is sorted and the walk ends at the limit. */
const readyOf = (which: string, limit: number): string =>
  `(SELECT seq, partition_id, OCTET_LENGTH(payload) AS bytes FROM outbox FORCE INDEX (outbox_work)
     WHERE state = 'pending' AND held = 0 AND partition_id ${which} ORDER BY partition_id, seq LIMIT ${limit})`;

/** By partition, the `seq` up to which rows are passed over, as they cannot be settled now. */
export type PassedOver = ReadonlyMap<number, string>;
const NOTHING_PASSED_OVER: PassedOver = new Map();

/**
 * Reads the ready rows of locked partitions, and the held rows `inTurn`, in the order of `seq`.
 *
 * A plain read: it takes no lock and, at READ COMMITTED, keeps no read view, so purge goes on while
 * the caller publishes. What another relay settled before it freed a partition is seen, because the
 * statement starts after the lock was given.
 *
 * From the beginning of each partition, and not from where the last pass ended: a row that commits
 * late lies before that, and may be the first of a key whose next row is there already. To skip it
 * would be to let that one overtake. Whoever gives `passedOver` asks `keysPassedOver` for such
 * keys.
 *
 * Each partition has its share of the rows, in a part of its own, unless they are `few`: sixteen
 * parts double what a small read costs.
 *
 * The inner part sees positions and sizes only; the running total cuts it before any payload is
 * fetched, so that a thousand large messages cannot exhaust the process.
 */
export async function read(
  tx: Transaction,
  partitions: readonly number[],
  inTurn: readonly string[],
  limits: ReadLimits,
  few: boolean,
  passedOver: PassedOver = NOTHING_PASSED_OVER,
): Promise<OutboxRow[]> {
  const rowsEach = Math.ceil(limits.rows / partitions.length);
  const ready =
    few && passedOver.size === 0
      ? [readyOf(`IN (${partitions.join()})`, limits.rows)]
      : partitions.map((partition) => {
          const seq = passedOver.get(partition);
          return readyOf(`= ${partition}${seq === undefined ? '' : ` AND seq > ${BigInt(seq)}`}`, rowsEach);
        });
  const retried =
    inTurn.length === 0
      ? []
      : [
          `(SELECT seq, partition_id, OCTET_LENGTH(payload) AS bytes FROM outbox
          WHERE seq IN (?) AND state = 'pending' AND held = 1)`,
        ];
  const [rows] = await tx.query<(OutboxRow & RowDataPacket)[]>(
    `SELECT CAST(o.seq AS CHAR) AS seq, o.id, o.partition_id, o.aggregatetype, o.aggregateid, o.type, o.version, o.payload,
            o.headers, o.exchange, o.routing_key, o.delivery, o.when_parked, o.held, o.attempts, o.created_at,
            EXISTS (SELECT 1 FROM outbox_waiting) AS anything_waits
       FROM (SELECT seq, SUM(bytes) OVER (PARTITION BY partition_id ORDER BY seq) - bytes AS ahead
               FROM (${[...ready, ...retried].join(' UNION ALL ')}) AS candidate) AS sized
       STRAIGHT_JOIN outbox AS o ON o.seq = sized.seq
      WHERE sized.ahead < ?
      ORDER BY o.seq`,
    [...(inTurn.length === 0 ? [] : [inTurn]), Math.ceil(limits.bytes / partitions.length)],
  );
  return rows;
}

/**
 * Of the keys of `rows`, those with a ready row among the rows that are passed over: theirs must
 * wait for it. Walks the rows that are passed over, by outbox_work; asked only while there are
 * some.
 */
export async function keysPassedOver(
  tx: Transaction,
  passedOver: PassedOver,
  rows: readonly OutboxRow[],
): Promise<ReadonlySet<string>> {
  const ids = [...new Set(rows.map(({ aggregateid }) => aggregateid))].map(asBytes);
  const here = new Set(rows.map((row) => row.partition_id));
  const parts = [...passedOver].filter(([partition]) => here.has(partition));
  if (parts.length === 0) return new Set();
  const [found] = await tx.query<(RowDataPacket & Pick<OutboxRow, 'aggregatetype' | 'aggregateid'>)[]>(
    parts
      .map(
        ([partition, seq]) => `(SELECT DISTINCT aggregatetype, aggregateid FROM outbox FORCE INDEX (outbox_work)
          WHERE state = 'pending' AND held = 0 AND partition_id = ${partition} AND seq <= ${BigInt(seq)} AND aggregateid IN (?))`,
      )
      .join(' UNION ALL '),
    parts.map(() => ids),
  );
  return new Set(found.map(keyOf));
}

/** Those of these rows that are ready still. By primary key. */
export async function readReady(tx: Transaction, seqs: readonly string[]): Promise<ReadonlySet<string>> {
  if (seqs.length === 0) return new Set();
  const [rows] = await tx.query<(RowDataPacket & { seq: string })[]>(
    "SELECT CAST(seq AS CHAR) AS seq FROM outbox FORCE INDEX (PRIMARY) WHERE seq IN (?) AND state = 'pending' AND held = 0",
    [seqs],
  );
  return new Set(rows.map(({ seq }) => seq));
}

/**
 * By ordering key, the `seq` of its first waiting row: whatever comes after that row in the key is
 * blocked.
 */
export type Heads = ReadonlyMap<string, string>;

/** The heads of those keys of `rows` that have one. */
export async function readHeads(tx: Transaction, rows: readonly Pick<OutboxRow, 'aggregateid'>[]): Promise<Heads> {
  const [heads] = await tx.query<(RowDataPacket & { aggregatetype: string; aggregateid: string; seq: string })[]>(
    `SELECT aggregatetype, aggregateid, CAST(MIN(seq) AS CHAR) AS seq FROM outbox_waiting
      WHERE aggregateid IN (?) GROUP BY aggregateid, aggregatetype`,
    [[...new Set(rows.map((row) => row.aggregateid))].map(asBytes)],
  );
  return new Map(heads.map((head) => [keyOf(head), head.seq]));
}
