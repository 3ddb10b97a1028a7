import { type Pool, type Transaction, transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { lockPartition } from './claim.ts';

/** Longer than a pass may take: while a relay holds a partition, `republish` waits for it. */
const TIMEOUT_MS = 60_000;

/**
 * Sets published rows back to pending, so that the relay sends them again under the same ids. Rows
 * of one partition change in one transaction under the partition's lock. So no relay is in the
 * middle of these keys, and the rows of a key go out again in the order of `seq`. Rows that wait to
 * be sent have their place by `seq` too: those that were written later come later.
 *
 * @param seqs in hundreds; rows that are not published are left alone.
 * @returns the `seq` of those that were set back.
 */
export async function republish(pool: Pool, seqs: readonly string[]): Promise<ReadonlySet<string>> {
  if (seqs.length === 0) return new Set();
  // A row never changes its partition, so this needs no lock.
  const [places] = await pool.query<(RowDataPacket & { seq: string; partition_id: number })[]>(
    'SELECT CAST(seq AS CHAR) AS seq, partition_id FROM outbox FORCE INDEX (PRIMARY) WHERE seq IN (?)',
    [seqs],
  );
  const done = new Set<string>();
  for (const [partition, found] of Map.groupBy(places, (row) => row.partition_id)) {
    const ofPartition = found.map(({ seq }) => seq);
    const back = await transaction(pool, (tx) => setBack(tx, partition, ofPartition), { timeoutMs: TIMEOUT_MS });
    for (const seq of back) done.add(seq);
  }
  return done;
}

/** Writes by primary key alone, for the reason given in settle.ts. */
async function setBack(tx: Transaction, partition: number, seqs: readonly string[]): Promise<readonly string[]> {
  await lockPartition(tx, partition);
  // Read only now: a row that retention deleted before it freed the partition is not sent again.
  const [rows] = await tx.query<(RowDataPacket & { seq: string })[]>(
    "SELECT CAST(seq AS CHAR) AS seq FROM outbox FORCE INDEX (PRIMARY) WHERE seq IN (?) AND state = 'published'",
    [seqs],
  );
  const published = rows.map(({ seq }) => seq);
  if (published.length === 0) return [];
  // published_at goes: by it, the retention of claimed payloads knows what is still to be fetched.
  await tx.query(
    `UPDATE outbox FORCE INDEX (PRIMARY)
        SET state = 'pending', held = 0, attempts = 0, published_at = NULL, available_at = UTC_TIMESTAMP(6)
      WHERE seq IN (?)`,
    [published],
  );
  return published;
}
