import { asBytes, type Transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { fitReason } from './row.ts';

// Every statement here writes by primary key, in a transaction that holds the rows' partition: it meets no other relay, and
// no writer either, since writers only insert. Only by primary key, though: for a list that is long beside the table, the optimizer
// prefers to read all of it, and so waits for rows of other partitions: two lanes then deadlock (settle.test.ts). FORCE INDEX is enough
// for an UPDATE. For a DELETE it is not (MariaDB scans even so, and makes a subquery of 1,000 values), so its rows lead a join.

type Seqs = readonly string[];

/** Deletes rows by primary key, those for which `condition` holds. */
export async function deleteBySeq(
  tx: Transaction,
  table: 'outbox' | 'outbox_waiting',
  seqs: Seqs,
  condition = 'TRUE',
): Promise<void> {
  // Without ERROR ON ERROR a number that did not fit would be NULL, delete nothing, and its row be sent for ever.
  await tx.execute(
    `DELETE o FROM JSON_TABLE(?, '$[*]' COLUMNS (seq BIGINT UNSIGNED PATH '$' ERROR ON ERROR)) AS gone
       STRAIGHT_JOIN ${table} AS o FORCE INDEX (PRIMARY) ON o.seq = gone.seq WHERE ${condition}`,
    [`[${seqs.join()}]`],
  );
}

/** The rows are confirmed. One statement for all of them. */
export async function settle(tx: Transaction, seqs: Seqs, { deleteRows }: { deleteRows: boolean }): Promise<void> {
  if (seqs.length === 0) return;
  if (deleteRows) return await deleteBySeq(tx, 'outbox', seqs);
  await tx.query(
    `UPDATE outbox FORCE INDEX (PRIMARY) SET state = 'published', held = 0, published_at = UTC_TIMESTAMP(6), last_error = NULL
      WHERE seq IN (?)`,
    [seqs],
  );
}

/**
 * A writer of plain SQL may have put any number there. One more than the column holds would fail
 * the statement, and so its pass.
 */
const ONE_MORE = 'LEAST(attempts, 4294967294) + 1';

export interface Backoff {
  /** Milliseconds before the second attempt; doubles with each. */
  readonly firstMs: number;
  readonly mostMs: number;
}

/**
 * The broker has refused these rows, all for one reason: each counts an attempt and waits, twice as long each time, with jitter
 * so that what failed together does not come back together.
 */
export async function postpone(tx: Transaction, seqs: Seqs, reason: string, backoff: Backoff): Promise<void> {
  if (seqs.length === 0) return;
  // Assignments run from left to right, so the delay is worked out from the attempts before this one.
  await tx.query(
    `UPDATE outbox FORCE INDEX (PRIMARY)
        SET available_at = TIMESTAMPADD(MICROSECOND,
              ROUND(1000 * LEAST(?, ? * POW(2, LEAST(attempts, 30))) * (0.5 + RAND() / 2)), UTC_TIMESTAMP(6)),
            attempts = ${ONE_MORE}, held = 1, last_error = ?
      WHERE seq IN (?)`,
    [backoff.mostMs, backoff.firstMs, asBytes(fitReason(reason)), seqs],
  );
  await tx.query(
    `INSERT INTO outbox_waiting (seq, partition_id, aggregatetype, aggregateid, due_at)
     SELECT seq, partition_id, aggregatetype, aggregateid, available_at FROM outbox FORCE INDEX (PRIMARY) WHERE seq IN (?)
     ON DUPLICATE KEY UPDATE due_at = VALUES(due_at)`,
    [seqs],
  );
}

/** These rows stand behind a row of their key that waits. No attempt is counted: nothing was tried. */
export async function hold(tx: Transaction, seqs: Seqs): Promise<void> {
  if (seqs.length === 0) return;
  await tx.query('UPDATE outbox FORCE INDEX (PRIMARY) SET held = 1 WHERE seq IN (?)', [seqs]);
  await tx.query(
    `INSERT INTO outbox_waiting (seq, partition_id, aggregatetype, aggregateid, due_at)
     SELECT seq, partition_id, aggregatetype, aggregateid, NULL FROM outbox FORCE INDEX (PRIMARY) WHERE seq IN (?)
     ON DUPLICATE KEY UPDATE due_at = NULL`,
    [seqs],
  );
}

/** These rows can never be sent. `blocking` ones keep their place at the head of their key, so that the rest waits for a person. */
export async function park(tx: Transaction, seqs: Seqs, reason: string, blocking: boolean): Promise<void> {
  if (seqs.length === 0) return;
  if (blocking) await hold(tx, seqs);
  await tx.query(
    `UPDATE outbox FORCE INDEX (PRIMARY) SET state = 'parked', held = ?, attempts = ${ONE_MORE}, last_error = ? WHERE seq IN (?)`,
    [blocking ? 1 : 0, asBytes(fitReason(reason)), seqs],
  );
}

/**
 * These rows wait no longer. The next one of each of their keys becomes due at once: held rows leave one at a time, each as
 * the head of its key, so that none can overtake.
 */
export async function unblock(tx: Transaction, gone: Seqs, aggregateIds: readonly string[]): Promise<void> {
  if (gone.length === 0) return;
  await deleteBySeq(tx, 'outbox_waiting', gone);
  await makeHeadsDue(tx, aggregateIds);
}

/** The first waiting row of each key with one of these ids is due now, unless it is parked or has a time of its own. */
export async function makeHeadsDue(tx: Transaction, aggregateIds: readonly string[]): Promise<void> {
  // MIN over the whole key prefix of outbox_waiting_key: a step a key, however many rows wait in it. By itself, as a plain read: within the
  // UPDATE it locks what it reads, and for many keys MariaDB reads all of the table.
  const [heads] = await tx.query<(RowDataPacket & { seq: string })[]>(
    `SELECT CAST(head.seq AS CHAR) AS seq
       FROM (SELECT MIN(seq) AS seq FROM outbox_waiting WHERE aggregateid IN (?) GROUP BY aggregateid, aggregatetype) AS head
       STRAIGHT_JOIN outbox AS o ON o.seq = head.seq WHERE o.state = 'pending'`,
    [aggregateIds.map(asBytes)],
  );
  if (heads.length === 0) return;
  await tx.query(
    'UPDATE outbox_waiting FORCE INDEX (PRIMARY) SET due_at = UTC_TIMESTAMP(6) WHERE seq IN (?) AND due_at IS NULL',
    [heads.map(({ seq }) => seq)],
  );
}

/** These entries are not the head of their key: `unblock` makes them due when their turn comes. */
export async function waitForHead(tx: Transaction, seqs: Seqs): Promise<void> {
  if (seqs.length === 0) return;
  await tx.query('UPDATE outbox_waiting FORCE INDEX (PRIMARY) SET due_at = NULL WHERE seq IN (?)', [seqs]);
}
