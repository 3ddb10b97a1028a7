import { asBytes, type Pool, type Transaction, transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { lockPartition } from './claim.ts';
import type { OutboxState } from './inspect.ts';
import { isPossibleId } from './row.ts';
import { hold, unblock } from './settle.ts';

/** What a retry did with a row, or why it did nothing. */
export type RetryOutcome =
  /** It is its key's next, and the relay sends it now. */
  | 'due'
  /** It waits behind an earlier message of its key, and goes when that one has gone. */
  | 'behind'
  /** The rest of its key may have gone out, so that it would come too late. Left alone. */
  | 'released'
  /** Nothing to retry. */
  | 'pending'
  | 'published'
  /** No such row. */
  | 'unknown';

interface Row {
  readonly seq: string;
  readonly id: string;
  readonly aggregateid: string;
  readonly when_parked: 'hold' | 'continue';
  readonly state: OutboxState;
}

const READ = `SELECT CAST(seq AS CHAR) AS seq, id, aggregateid, when_parked,
    CASE WHEN state = 'pending' AND held = 1 THEN 'held' WHEN state = 'parked' AND held = 0 THEN 'released' ELSE state END AS state
  FROM outbox FORCE INDEX (PRIMARY) WHERE seq IN (?)`;

/**
 * Parked or held messages are tried again now, their attempts counted from zero. Order within a key stays: each becomes its
 * key's head again, or waits behind the one that is. Rows of one partition change in one transaction, under the partition's
 * lock: this waits for a relay's pass and never meets it.
 *
 * @param ids of any number of messages; one transaction a partition, so give them in hundreds.
 * @param outOfOrder also those that were released. Later messages of their key may have been published, so order is lost.
 */
export async function retryNow(
  pool: Pool,
  ids: readonly string[],
  { outOfOrder = false }: { outOfOrder?: boolean } = {},
): Promise<ReadonlyMap<string, RetryOutcome>> {
  const outcomes = new Map<string, RetryOutcome>(ids.map((id) => [id, 'unknown']));
  for (const [partition, seqs] of await locate(pool, ids)) {
    const changed = await inPartition(pool, partition, seqs, async (tx, rows) => {
      const retried = rows.filter(
        ({ state, when_parked }) =>
          state === 'held' ||
          state === 'parked' ||
          (state === 'released' && (outOfOrder || when_parked === 'continue')),
      );
      const due = await retry(tx, retried);
      return rows.map((row): [string, RetryOutcome] => {
        if (due.has(row.seq)) return [row.id, 'due'];
        const { state } = row;
        // The first two are always among the retried.
        return [row.id, state === 'held' || state === 'parked' || retried.includes(row) ? 'behind' : state];
      });
    });
    for (const [id, outcome] of changed) outcomes.set(id, outcome);
  }
  return outcomes;
}

/** @returns the `seq` of those that are due. */
async function retry(tx: Transaction, rows: readonly Row[]): Promise<ReadonlySet<string>> {
  if (rows.length === 0) return new Set();
  const seqs = rows.map(({ seq }) => seq);
  // Through outbox_waiting, also for a row that blocked nobody: it may stand behind a head, or have held rows behind it.
  await hold(tx, seqs);
  await tx.query(
    `UPDATE outbox FORCE INDEX (PRIMARY) SET state = 'pending', attempts = 0, available_at = UTC_TIMESTAMP(6) WHERE seq IN (?)`,
    [seqs],
  );
  // As in `unblock`, for these alone: another key's head keeps its backoff.
  await tx.query(
    `UPDATE outbox_waiting AS w
       JOIN (SELECT MIN(seq) AS seq FROM outbox_waiting WHERE aggregateid IN (?)
              GROUP BY aggregateid, aggregatetype) AS head ON head.seq = w.seq
        SET w.due_at = UTC_TIMESTAMP(6)
      WHERE w.seq IN (?)`,
    [[...new Set(rows.map(({ aggregateid }) => aggregateid))].map(asBytes), seqs],
  );
  const [due] = await tx.query<(RowDataPacket & { seq: string })[]>(
    'SELECT CAST(seq AS CHAR) AS seq FROM outbox_waiting FORCE INDEX (PRIMARY) WHERE seq IN (?) AND due_at IS NOT NULL',
    [seqs],
  );
  return new Set(due.map(({ seq }) => seq));
}

/** What a release did, or the state that was the reason to do nothing. */
export type ReleaseOutcome = 'released' | 'released before' | 'pending' | 'held' | 'published' | 'unknown';

/**
 * Gives up on a parked message: the rest of its key goes on without it. The row stays, parked, so that it is never taken for
 * published. Under its partition's lock, as `retryNow`.
 */
export async function release(pool: Pool, id: string): Promise<ReleaseOutcome> {
  const [place] = await locate(pool, [id]);
  if (place === undefined) return 'unknown';
  return await inPartition(pool, ...place, async (tx, [row]) => {
    if (row === undefined) return 'unknown';
    if (row.state !== 'parked') return row.state === 'released' ? 'released before' : row.state;
    await tx.query('UPDATE outbox FORCE INDEX (PRIMARY) SET held = 0 WHERE seq = ?', [row.seq]);
    await unblock(tx, [row.seq], [row.aggregateid]);
    return 'released';
  });
}

/** By partition. A row never changes its partition, so this needs no lock. */
async function locate(pool: Pool, ids: readonly string[]): Promise<ReadonlyMap<number, readonly string[]>> {
  const possible = ids.filter(isPossibleId).map(asBytes);
  if (possible.length === 0) return new Map();
  const [rows] = await pool.query<(RowDataPacket & { seq: string; partition_id: number })[]>(
    'SELECT CAST(seq AS CHAR) AS seq, partition_id FROM outbox WHERE id IN (?)',
    [possible],
  );
  const places = Map.groupBy(rows, (row) => row.partition_id);
  return new Map(Array.from(places, ([partition, found]) => [partition, found.map(({ seq }) => seq)]));
}

/** Longer than a pass may take: while one holds the partition, this waits for it. */
const TIMEOUT_MS = 60_000;

async function inPartition<T>(
  pool: Pool,
  partition: number,
  seqs: readonly string[],
  work: (tx: Transaction, rows: readonly Row[]) => Promise<T>,
): Promise<T> {
  return await transaction(
    pool,
    async (tx) => {
      await lockPartition(tx, partition);
      // Read only now: what a relay did before it freed the partition is seen.
      const [rows] = await tx.query<(Row & RowDataPacket)[]>(READ, [seqs]);
      return await work(tx, rows);
    },
    { timeoutMs: TIMEOUT_MS },
  );
}
