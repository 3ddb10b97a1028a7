import { isContention, isDuplicateKey, type Pool, type Transaction, transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { missingPartitions, readOutboxProblems } from './backlog.ts';
import { lockPartition } from './claim.ts';
import type { RelayLogger } from './drain.ts';
import { deleteBySeq, hold, makeHeadsDue } from './settle.ts';

// What people change by plain SQL leaves rows that no pass comes to again: a head that somebody deleted never gives its turn to
// the next row of its key. The relay's cleaner looks for such rows, and repairs what has one safe answer.

/** What is wrong with a row of `outbox`, its entry in `outbox_waiting`, or a partition. */
export type Fault =
  /** An entry has no row. */
  | 'rowGone'
  /** A row waits for nothing, because it is published or its key goes on without it, and has an entry or is held. */
  | 'rowDone'
  /** A row waits and has no entry. */
  | 'entryMissing'
  /** A row is ready, and its entry says that it waits. */
  | 'rowNotHeld'
  /** An entry names another key or partition than its row. */
  | 'entryOfAnotherKey'
  /** Nothing makes the first row of its key due. */
  | 'headNotDue'
  | 'partitionMissing';

interface Faulty {
  readonly seq: string;
  readonly id: string | null;
  readonly fault: Fault;
  readonly rowPartition: number;
  readonly entryPartition: number;
  readonly rowKey: string | null;
  readonly entryKey: string | null;
}

// Bytes are compared, because the key's columns have another collation in each of the two tables. The last condition is one step
// in outbox_waiting_key for each entry that waits for its head.
const FAULT = `CASE
    WHEN o.seq IS NULL THEN 'rowGone'
    WHEN o.state = 'published' OR (o.state = 'parked' AND (o.held = 0 OR o.when_parked = 'continue'))
      THEN IF(w.seq IS NULL AND o.held = 0, NULL, 'rowDone')
    WHEN w.seq IS NULL THEN IF(o.held = 0, NULL, 'entryMissing')
    WHEN o.held = 0 THEN 'rowNotHeld'
    WHEN w.partition_id <> o.partition_id OR CAST(w.aggregateid AS BINARY) <> CAST(o.aggregateid AS BINARY)
      OR CAST(w.aggregatetype AS BINARY) <> CAST(o.aggregatetype AS BINARY) THEN 'entryOfAnotherKey'
    WHEN w.due_at IS NULL AND o.state = 'pending' AND NOT EXISTS (
      SELECT 1 FROM outbox_waiting AS earlier FORCE INDEX (outbox_waiting_key)
       WHERE earlier.aggregateid = w.aggregateid AND earlier.aggregatetype = w.aggregatetype AND earlier.seq < w.seq)
      THEN 'headNotDue'
  END`;

/** @param seqs a SELECT of the rows and entries to look at, as `seq`. */
const faultyOf = (seqs: string): string =>
  `SELECT CAST(each_one.seq AS CHAR) AS seq, o.id, ${FAULT} AS fault, o.aggregateid AS rowKey, w.aggregateid AS entryKey,
          COALESCE(o.partition_id, w.partition_id) AS rowPartition, COALESCE(w.partition_id, o.partition_id) AS entryPartition
     FROM (${seqs}) AS each_one
     LEFT JOIN outbox AS o FORCE INDEX (PRIMARY) ON o.seq = each_one.seq
     LEFT JOIN outbox_waiting AS w FORCE INDEX (PRIMARY) ON w.seq = each_one.seq
   HAVING fault IS NOT NULL`;

/** Rows or entries of a page, and pages of a run: a run costs no more, however many rows wait. */
const PAGE = 1_000;
const PAGES = 20;

/** Where a page ends. */
interface Place {
  readonly partition: number;
  readonly seq: string;
}
const BEGINNING: Place = { partition: -1, seq: '-1' };

interface Walk {
  /** The end of the page behind a place; no row if the walk ends within that page. */
  readonly end: string;
  readonly faulty: string;
  readonly values: (behind: Place) => readonly (number | bigint)[];
}

// In the order of an index, so that a page begins where the one before ended. Plain reads: they lock nothing, and a pass commits
// rows and entries together.
const heldRows = (state: string): Walk => {
  const from = `FROM outbox AS held FORCE INDEX (outbox_work)
    WHERE state = '${state}' AND held = 1 AND (partition_id > ? OR (partition_id = ? AND held.seq > ?))
    ORDER BY partition_id, held.seq`;
  return {
    end: `SELECT partition_id AS \`partition\`, CAST(held.seq AS CHAR) AS seq ${from} LIMIT 1 OFFSET ${PAGE - 1}`,
    // A row that has an entry belongs to the walk over the entries.
    faulty: faultyOf(
      `SELECT page.seq FROM (SELECT held.seq ${from} LIMIT ${PAGE}) AS page
         LEFT JOIN outbox_waiting AS entry FORCE INDEX (PRIMARY) ON entry.seq = page.seq WHERE entry.seq IS NULL`,
    ),
    values: ({ partition, seq }) => [partition, partition, BigInt(seq)],
  };
};

const ENTRIES = 'FROM outbox_waiting AS entry FORCE INDEX (PRIMARY) WHERE entry.seq > ? ORDER BY entry.seq';

const WALKS: readonly Walk[] = [
  ...['pending', 'parked', 'published'].map(heldRows),
  {
    end: `SELECT 0 AS \`partition\`, CAST(entry.seq AS CHAR) AS seq ${ENTRIES} LIMIT 1 OFFSET ${PAGE - 1}`,
    faulty: faultyOf(`SELECT entry.seq ${ENTRIES} LIMIT ${PAGE}`),
    values: ({ seq }) => [BigInt(seq)],
  },
];

export interface Repaired {
  readonly fault: Fault;
  /** The message's id, or where it is. */
  readonly what: string;
}

/**
 * Repairs one outbox: with each call a bounded part of it, behind the part of the call before.
 *
 * @returns what was repaired.
 */
export function repairing(pool: Pool): () => Promise<readonly Repaired[]> {
  let left: readonly Walk[] = [];
  let behind = BEGINNING;
  return async () => {
    const repaired = [...(await addPartitions(pool))];
    if (left.length === 0) left = WALKS;
    const restored = new Map<number, boolean>();
    for (let page = 0; page < PAGES; page++) {
      const [walk] = left;
      if (walk === undefined) break;
      const values = [...walk.values(behind)];
      const [[end]] = await pool.query<(Place & RowDataPacket)[]>(walk.end, values);
      const [found] = await pool.query<(Faulty & RowDataPacket)[]>(walk.faulty, values);
      repaired.push(...(await repairFound(pool, found, restored)));
      behind = end ?? BEGINNING;
      if (end === undefined) left = left.slice(1);
    }
    return repaired;
  };
}

/** Nobody can lock a partition without a row, so its messages would never be sent. */
async function addPartitions(pool: Pool): Promise<readonly Repaired[]> {
  const added: Repaired[] = [];
  for (const partition of await missingPartitions(pool)) {
    try {
      // How far back the partition remembers is lost too: from now on, as far as anybody can prove.
      await pool.execute('INSERT INTO outbox_partition (partition_id, forgotten_before) VALUES (?, UTC_TIMESTAMP(6))', [
        partition,
      ]);
      added.push({ fault: 'partitionMissing', what: `partition ${partition}` });
    } catch (error) {
      // Another relay was faster. A relay with the grants of an earlier release may not: `readOutboxProblems` names it.
      if (!isDuplicateKey(error) && !isDenied(error)) throw error;
    }
  }
  return added;
}

const isDenied = (error: unknown): boolean => error instanceof Error && 'errno' in error && error.errno === 1142;

/** Rows of a transaction. */
const BATCH = 500;

/**
 * Once for each partition, or for the two that a row and its entry name.
 *
 * @param restored whether each partition that this run has come to has all of its entries. To find out costs a walk over its
 *   held rows.
 */
async function repairFound(
  pool: Pool,
  found: readonly Faulty[],
  restored: Map<number, boolean>,
): Promise<readonly Repaired[]> {
  const repaired: Repaired[] = [];
  const partitionsOf = ({ rowPartition, entryPartition }: Faulty): string =>
    JSON.stringify([...new Set([rowPartition, entryPartition])].sort((a, b) => a - b));
  for (const [json, rows] of Map.groupBy(found, partitionsOf)) {
    const partitions: readonly number[] = JSON.parse(json);
    try {
      for (const partition of partitions.filter((each) => !restored.has(each))) {
        const entries = await restoreEntries(pool, partition);
        repaired.push(...entries.repaired);
        restored.set(partition, entries.complete);
      }
      if (!partitions.every((partition) => restored.get(partition) === true)) continue;
      for (let from = 0; from < rows.length; from += BATCH) {
        const batch = rows.slice(from, from + BATCH);
        repaired.push(...(await inPartitions(pool, partitions, (tx) => repairRows(tx, batch))));
      }
    } catch (error) {
      // A relay holds the partition for longer than this waits. The next walk finds the rows again.
      if (!isContention(error)) throw error;
    }
  }
  return repaired;
}

/** Most transactions of `restoreEntries` in a partition and run. */
const RESTORES = 20;

const WITHOUT_ENTRY = `SELECT CAST(held.seq AS CHAR) AS seq FROM outbox AS held FORCE INDEX (outbox_work)
    LEFT JOIN outbox_waiting AS entry FORCE INDEX (PRIMARY) ON entry.seq = held.seq
   WHERE state = ? AND held = 1 AND held.partition_id = ? AND held.seq > ? AND entry.seq IS NULL ORDER BY held.seq LIMIT ${BATCH}`;

/**
 * All entries that are missing in a partition, before any head there becomes due: an earlier row of the same key may be among
 * those without one, and must not be overtaken.
 */
async function restoreEntries(
  pool: Pool,
  partition: number,
): Promise<{ readonly complete: boolean; readonly repaired: readonly Repaired[] }> {
  const repaired: Repaired[] = [];
  let batches = 0;
  for (const state of ['pending', 'parked']) {
    for (let after = '-1'; ; batches++) {
      if (batches === RESTORES) return { complete: false, repaired };
      // Read before the lock, because the walk over many held rows takes longer than a pass should wait.
      const values = [state, partition, BigInt(after)];
      const [lost] = await pool.query<(Pick<Faulty, 'seq'> & RowDataPacket)[]>(WITHOUT_ENTRY, values);
      const rows = lost.length === 0 ? [] : await inPartitions(pool, [partition], (tx) => putRight(tx, lost));
      repaired.push(...rows.filter(({ fault }) => fault !== 'headNotDue').map(toRepaired));
      const last = lost[BATCH - 1];
      if (last === undefined) break;
      after = last.seq;
    }
  }
  return { complete: true, repaired };
}

const BY_SEQ = faultyOf(
  "SELECT seq FROM JSON_TABLE(?, '$[*]' COLUMNS (seq BIGINT UNSIGNED PATH '$' ERROR ON ERROR)) AS given",
);

async function repairRows(tx: Transaction, found: readonly Faulty[]): Promise<readonly Repaired[]> {
  const rows = await putRight(tx, found);
  // The keys that were found, too: a pass may have sent the row meanwhile, and the entry have held another key.
  const keys = [...found, ...rows].flatMap(({ rowKey, entryKey }) => [rowKey, entryKey]).filter((key) => key !== null);
  await makeHeadsDue(tx, [...new Set(keys)]);
  return rows.map(toRepaired);
}

/**
 * All but the heads: those are of whole keys. It reads the rows again, now that no pass can change them, and writes by primary
 * key, as in settle.ts.
 */
async function putRight(tx: Transaction, found: readonly Pick<Faulty, 'seq'>[]): Promise<readonly Faulty[]> {
  const [rows] = await tx.execute<(Faulty & RowDataPacket)[]>(BY_SEQ, [`[${found.map(({ seq }) => seq).join()}]`]);
  const of = (...faults: Fault[]): string[] => rows.filter(({ fault }) => faults.includes(fault)).map(({ seq }) => seq);
  const done = of('rowDone');
  if (done.length > 0) await tx.query('UPDATE outbox FORCE INDEX (PRIMARY) SET held = 0 WHERE seq IN (?)', [done]);
  // The entry of a ready row may have any key, so `hold` writes that anew as well.
  const wrong = of('rowGone', 'rowDone', 'rowNotHeld', 'entryOfAnotherKey');
  if (wrong.length > 0) await deleteBySeq(tx, 'outbox_waiting', wrong);
  await hold(tx, of('entryMissing', 'rowNotHeld', 'entryOfAnotherKey'));
  return rows;
}

const toRepaired = ({ fault, id, seq }: Faulty): Repaired => ({ fault, what: id ?? `seq ${seq}` });

async function inPartitions<T>(
  pool: Pool,
  partitions: readonly number[],
  work: (tx: Transaction) => Promise<T>,
): Promise<T> {
  const locked = async (tx: Transaction): Promise<T> => {
    for (const partition of partitions) await lockPartition(tx, partition);
    return await work(tx);
  };
  return await transaction(pool, locked, { attempts: 1 });
}

/** What is named of many. */
const SHOWN = 20;

/** Repairs, and says in the log what was repaired and, once, what a person has to do. */
export function keepRepaired(
  { name, pool }: { readonly name: string; readonly pool: Pool },
  logger: Pick<RelayLogger, 'warn'>,
): () => Promise<void> {
  const repair = repairing(pool);
  let said = '';
  return async () => {
    const repaired = await repair();
    if (repaired.length > 0) {
      const counts = Object.fromEntries(
        Array.from(
          Map.groupBy(repaired, ({ fault }) => fault),
          ([fault, rows]) => [fault, rows.length],
        ),
      );
      const messages = repaired.slice(0, SHOWN).map(({ what }) => what);
      logger.warn({ schema: name, ...counts, messages }, 'Repaired rows of the outbox that somebody had changed');
    }
    const problems = await readOutboxProblems(pool);
    const saying = JSON.stringify(problems);
    if (saying !== said) for (const problem of problems) logger.warn({ schema: name, ...problem }, problem.what);
    said = saying;
  };
}
