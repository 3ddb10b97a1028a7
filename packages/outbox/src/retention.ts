import { isContention, type Pool, type Transaction, transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { lockPartition } from './claim.ts';
import { deleteBySeq } from './settle.ts';

const BATCH = 500;
/** The last moment that a DATETIME holds, in milliseconds. */
const LATEST = Date.UTC(9999, 11, 31, 23, 59, 59, 999);

/**
 * Deletes the published rows of one partition that are older than the retention, up to one batch of them.
 *
 * It holds the partition's lock, so it is the partition's only cleaner and works beside no relay: nobody to deadlock with. It
 * reads the oldest rows without asking for their age first; with the condition inside, a table in which nothing is old enough
 * would be read whole. A row that was published late therefore delays the ones behind it by at most the retention.
 *
 * @returns whether there may be more to delete. Not of a partition that its holder does not give back in time: the next round asks again.
 */
export async function deleteExpired(pool: Pool, partition: number, retentionHours: number): Promise<boolean> {
  const work = async (tx: Transaction): Promise<boolean> => {
    await lockPartition(tx, partition);
    const [oldest] = await tx.query<
      (RowDataPacket & { seq: string; created_at: Date; expired: number; ahead: number })[]
    >(
      `SELECT CAST(o.seq AS CHAR) AS seq, created_at, published_at < TIMESTAMPADD(SECOND, ?, UTC_TIMESTAMP(6)) AS expired,
              published_at > UTC_TIMESTAMP(6) AS ahead
         FROM outbox AS o FORCE INDEX (outbox_work)
        WHERE state = 'published' AND held = 0 AND partition_id = ? ORDER BY o.seq LIMIT ${BATCH}`,
      [-Math.round(retentionHours * 3600), partition],
    );
    // A wrong clock, or a hand: these would delay the ones behind them for as long as that time is ahead.
    const ahead = oldest.filter((row) => row.ahead === 1).map(({ seq }) => seq);
    if (ahead.length > 0) {
      await tx.query('UPDATE outbox FORCE INDEX (PRIMARY) SET published_at = UTC_TIMESTAMP(6) WHERE seq IN (?)', [
        ahead,
      ]);
    }
    const rows = oldest.filter(({ expired }) => expired === 1);
    if (rows.length === 0) return false;
    // A time that is no date ('0000-00-00', from a writer of plain SQL) is NaN here, and no message
    // can be known to be older.
    const written = rows.map((row) => row.created_at.getTime()).filter(Number.isFinite);
    if (written.length > 0) await forget(tx, [partition], new Date(Math.min(Math.max(...written) + 1, LATEST)));
    // The state again: whatever this read, only a published row may go.
    await deleteBySeq(
      tx,
      'outbox',
      rows.map((row) => row.seq),
      "o.state = 'published'",
    );
    // Not the number of those that went: a row that stays would end each round after one batch.
    return oldest.length === BATCH;
  };
  try {
    return await transaction(pool, work, { attempts: 1 });
  } catch (error) {
    if (isContention(error)) return false;
    throw error;
  }
}

/**
 * Writes down how far back these partitions remember: a message written before `before` may be gone, so its absence proves
 * nothing. Never earlier than what is written already, and never later than now: what is yet to be
 * written is not forgotten, whatever time a deleted row had. The caller holds the partitions'
 * locks.
 *
 * @param before undefined for now, where rows are deleted as they are published.
 */
export async function forget(tx: Transaction, partitions: readonly number[], before?: Date): Promise<void> {
  await tx.query(
    `UPDATE outbox_partition
        SET forgotten_before = GREATEST(COALESCE(forgotten_before, '1000-01-01'), LEAST(COALESCE(?, UTC_TIMESTAMP(6)), UTC_TIMESTAMP(6)))
      WHERE partition_id IN (?)`,
    [before ?? null, partitions],
  );
}
