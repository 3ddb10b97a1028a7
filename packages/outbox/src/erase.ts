import { crc32 } from 'node:zlib';
import { asBytes, type Pool, type Transaction, transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { lockPartition } from './claim.ts';
import { ENTRY, type OutboxEntry } from './inspect.ts';
import { forget } from './retention.ts';
import { isPossibleId, PARTITIONS } from './row.ts';
import { deleteBySeq } from './settle.ts';

// What an outbox stores of one key, and how it goes.

/** Longer than a pass may take: while a relay holds a partition, `eraseRows` waits for it. */
const TIMEOUT_MS = 60_000;
const PAGE = 500;

/** As the generated column has it. */
const partitionOf = (aggregateId: string): number => crc32(asBytes(aggregateId)) % PARTITIONS;

/**
 * The rows of one key, in no order. No index has the key: this reads the key's partition, which is
 * a sixteenth of the table, through outbox_work. One statement and so one read view: of two, one
 * for each state, a row that changes its state between them is in both or in neither. It locks
 * nothing.
 *
 * @param type of the aggregate; undefined for any.
 */
export async function findByKey(
  pool: Pool,
  aggregateId: string,
  type: string | undefined,
): Promise<readonly OutboxEntry[]> {
  // Every state and held, so that the index leads to the partition. The key as binary, because the
  // column's collation ignores trailing spaces.
  const [rows] = await pool.query<(OutboxEntry & RowDataPacket)[]>(
    `SELECT ${ENTRY} FROM outbox AS o FORCE INDEX (outbox_work)
      WHERE o.state IN ('pending', 'published', 'parked') AND o.held IN (0, 1) AND o.partition_id = ${partitionOf(aggregateId)}
        AND CAST(o.aggregateid AS BINARY) = ? ${type === undefined ? '' : 'AND CAST(o.aggregatetype AS BINARY) = ?'}`,
    [asBytes(aggregateId), ...(type === undefined ? [] : [asBytes(type)])],
  );
  return rows;
}

/**
 * Deletes rows of one key that are published or released, under the lock of its partition. The
 * partition then remembers only what was written later: an absent row would otherwise prove that a
 * message was never written.
 *
 * @returns the `seq` of those that are gone.
 */
export async function eraseRows(
  pool: Pool,
  aggregateId: string,
  rows: readonly Pick<OutboxEntry, 'seq' | 'createdAt'>[],
): Promise<ReadonlySet<string>> {
  const gone = new Set<string>();
  for (let start = 0; start < rows.length; start += PAGE) {
    const page = rows.slice(start, start + PAGE);
    const erased = await transaction(pool, (tx) => erasePage(tx, partitionOf(aggregateId), page), {
      timeoutMs: TIMEOUT_MS,
    });
    for (const seq of erased) gone.add(seq);
  }
  return gone;
}

const SETTLED = "(o.state = 'published' OR (o.state = 'parked' AND o.held = 0))";

async function erasePage(
  tx: Transaction,
  partition: number,
  rows: readonly Pick<OutboxEntry, 'seq' | 'createdAt'>[],
): Promise<readonly string[]> {
  await lockPartition(tx, partition);
  const [settled] = await tx.query<(RowDataPacket & { seq: string })[]>(
    `SELECT CAST(o.seq AS CHAR) AS seq FROM outbox AS o FORCE INDEX (PRIMARY) WHERE o.seq IN (?) AND ${SETTLED}`,
    [rows.map(({ seq }) => seq)],
  );
  const seqs = settled.map(({ seq }) => seq);
  if (seqs.length === 0) return [];
  // A time that is no date ('0000-00-00') is NaN, as in deleteExpired.
  const isGone = new Set(seqs);
  const written = rows.filter(({ seq }) => isGone.has(seq)).map(({ createdAt }) => Date.parse(createdAt));
  const latest = Math.max(...written.filter(Number.isFinite));
  if (Number.isFinite(latest)) await forget(tx, [partition], new Date(latest + 1));
  await deleteBySeq(tx, 'outbox', seqs, SETTLED);
  return seqs;
}

/** Those of these messages for which the schema keeps a claimed payload. */
export async function findPayloads(pool: Pool, ids: readonly string[]): Promise<readonly string[]> {
  const possible = ids.filter(isPossibleId).map(asBytes);
  if (possible.length === 0) return [];
  const [rows] = await pool.query<(RowDataPacket & { id: string })[]>(
    'SELECT id FROM claimed_payloads WHERE id IN (?)',
    [possible],
  );
  return rows.map(({ id }) => id);
}

/** By primary key. @param ids in hundreds. */
export async function erasePayloads(pool: Pool, ids: readonly string[]): Promise<void> {
  if (ids.length === 0) return;
  await transaction(pool, (tx) => tx.query('DELETE FROM claimed_payloads WHERE id IN (?)', [ids.map(asBytes)]));
}
