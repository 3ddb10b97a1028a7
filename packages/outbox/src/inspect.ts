import { asBytes, type Pool } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { isPossibleId, PARTITIONS } from './row.ts';

// What people and scripts ask of an outbox. Plain reads of their own, outside any transaction: they lock nothing, and none of them
// keeps a read view open while it waits for the reader.

/** Where a message stands. `held` waits for its next attempt or behind its key's failed head; `released` is parked and blocks nobody. */
export type OutboxState = 'pending' | 'held' | 'parked' | 'released' | 'published';

const COLUMNS: Readonly<Record<OutboxState, readonly [state: string, held: 0 | 1]>> = {
  pending: ['pending', 0],
  held: ['pending', 1],
  parked: ['parked', 1],
  released: ['parked', 0],
  published: ['published', 0],
};

/** A row without its payload and its headers. Times are ISO 8601 in UTC with microseconds, so that they compare as text. */
export interface OutboxEntry {
  /** Text: a BIGINT may exceed what a number holds exactly. */
  readonly seq: string;
  readonly id: string;
  readonly aggregateType: string;
  readonly aggregateId: string;
  readonly type: string;
  readonly version: number;
  readonly state: OutboxState;
  readonly attempts: number;
  readonly lastError: string | null;
  readonly delivery: 'required' | 'optional';
  readonly whenParked: 'hold' | 'continue';
  readonly createdAt: string;
  readonly publishedAt: string | null;
}

const iso = (column: string): string => `DATE_FORMAT(${column}, '%Y-%m-%dT%H:%i:%s.%fZ')`;

/** @internal The columns of an `OutboxEntry`, of a table that is called `o`. */
export const ENTRY = `CAST(o.seq AS CHAR) AS seq, o.id, o.aggregatetype AS aggregateType, o.aggregateid AS aggregateId, o.type, o.version,
  CASE WHEN o.state = 'pending' AND o.held = 1 THEN 'held' WHEN o.state = 'parked' AND o.held = 0 THEN 'released' ELSE o.state END AS state,
  o.attempts, o.last_error AS lastError, o.delivery, o.when_parked AS whenParked,
  ${iso('o.created_at')} AS createdAt, ${iso('o.published_at')} AS publishedAt`;

/** All of them must hold; those that are absent hold for every row. */
export interface OutboxFilter {
  readonly states: readonly OutboxState[];
  readonly type?: string | undefined;
  /** Text that `last_error` contains, upper and lower case told apart. */
  readonly reason?: string | undefined;
  /** Seconds since the row was written, by the database's clock. */
  readonly olderThan?: number | undefined;
  readonly newerThan?: number | undefined;
}

/**
 * Rows in the order of `seq`, up to `limit`, after the row `after` ('0' for the first page).
 *
 * Up to `limit` from each partition, merged: outbox_work gives them in order, whatever the size of the backlog. Sorting all
 * that match would read it whole for each page.
 */
export async function listOutbox(
  pool: Pool,
  { states, type, reason, olderThan, newerThan }: OutboxFilter,
  { after, limit }: { after: string; limit: number },
): Promise<OutboxEntry[]> {
  const conditions: [sql: string, value: Buffer | bigint | number][] = [['seq > ?', BigInt(after)]];
  // As bytes: the column's collation ignores trailing spaces.
  if (type !== undefined) conditions.push(['CAST(type AS BINARY) = ?', asBytes(type)]);
  if (reason !== undefined) conditions.push(['LOCATE(?, last_error) > 0', asBytes(reason)]);
  if (olderThan !== undefined) conditions.push(['created_at < TIMESTAMPADD(SECOND, -?, UTC_TIMESTAMP(6))', olderThan]);
  if (newerThan !== undefined) conditions.push(['created_at > TIMESTAMPADD(SECOND, -?, UTC_TIMESTAMP(6))', newerThan]);
  const where = conditions.map(([sql]) => sql).join(' AND ');
  const branches = states.flatMap((each) => {
    const [state, held] = COLUMNS[each];
    return Array.from(
      { length: PARTITIONS },
      (_, partition) => `(SELECT seq FROM outbox FORCE INDEX (outbox_work)
         WHERE state = '${state}' AND held = ${held} AND partition_id = ${partition} AND ${where} ORDER BY seq LIMIT ${limit})`,
    );
  });
  const [rows] = await pool.query<(OutboxEntry & RowDataPacket)[]>(
    `SELECT ${ENTRY} FROM (${branches.join(' UNION ALL ')}) AS found STRAIGHT_JOIN outbox AS o ON o.seq = found.seq
      ORDER BY o.seq LIMIT ${limit}`,
    branches.flatMap(() => conditions.map(([, value]) => value)),
  );
  return rows;
}

export interface OutboxDetails extends OutboxEntry {
  readonly exchange: string;
  readonly routingKey: string;
  /** When a held row is tried again; null when it is not held, or waits behind `behind`. */
  readonly dueAt: string | null;
  /** The id of the first waiting message of its key, when that is another one. */
  readonly behind: string | null;
  readonly headers: string | null;
  /** Personal data, as a rule. */
  readonly payload: string;
}

export async function findInOutbox(pool: Pool, id: string): Promise<OutboxDetails | undefined> {
  if (!isPossibleId(id)) return undefined;
  const [[row]] = await pool.execute<(Omit<OutboxDetails, 'behind'> & RowDataPacket)[]>(
    `SELECT ${ENTRY}, o.exchange, COALESCE(o.routing_key, CONCAT(o.aggregatetype, '.', o.type)) AS routingKey,
            ${iso('w.due_at')} AS dueAt, o.headers, o.payload
       FROM outbox AS o LEFT JOIN outbox_waiting AS w ON w.seq = o.seq WHERE o.id = ?`,
    [id],
  );
  return row && { ...row, behind: row.state === 'published' ? null : await headBefore(pool, row) };
}

/**
 * The id of the first waiting row of a key, if that lies before `seq`. It is the first entry of the
 * key in outbox_waiting_key. The statement is one of its own, because the key's columns have
 * another collation in each of the two tables, and the servers refuse to compare them.
 */
async function headBefore(pool: Pool, { aggregateId, aggregateType, seq }: OutboxEntry): Promise<string | null> {
  const [[head]] = await pool.execute<(RowDataPacket & { id: string })[]>(
    `SELECT o.id FROM outbox_waiting AS w FORCE INDEX (outbox_waiting_key) JOIN outbox AS o ON o.seq = w.seq
      WHERE w.aggregateid = ? AND w.aggregatetype = ? AND w.seq < ? ORDER BY w.seq LIMIT 1`,
    [aggregateId, aggregateType, seq],
  );
  return head?.id ?? null;
}

/**
 * All rows in the order of the primary key, in pages: memory stays bounded whatever their number. A row that commits late below
 * a page that was read already is not seen; it was not committed when its page was.
 *
 * @param since the moment from which on rows were written, as `createdAt` has it. No index serves it: it costs a read of the table.
 * @param settledFor seconds. A row is `recent` when it was published, or written if it is not published, less long ago.
 */
export async function* scanOutbox(
  pool: Pool,
  { since, settledFor }: { since: string | undefined; settledFor: number },
): AsyncGenerator<(OutboxEntry & { readonly recent: number })[]> {
  // Without the Z: a DATETIME has no zone, and MySQL wants none.
  const from = since?.replace('Z', '') ?? null;
  for (let after = '0'; ; ) {
    const [rows] = await pool.execute<(OutboxEntry & { recent: number } & RowDataPacket)[]>(
      `SELECT ${ENTRY}, COALESCE(o.published_at, o.created_at) > TIMESTAMPADD(SECOND, -?, UTC_TIMESTAMP(6)) AS recent
         FROM outbox AS o FORCE INDEX (PRIMARY) WHERE o.seq > ? AND (? IS NULL OR o.created_at >= ?) ORDER BY o.seq LIMIT 1000`,
      [settledFor, after, from, from],
    );
    const last = rows.at(-1);
    if (last === undefined) return;
    yield rows;
    after = last.seq;
  }
}

/**
 * Those of these messages that have a row.
 *
 * @param ids in hundreds: each is one probe of outbox_id.
 */
export async function knownToOutbox(pool: Pool, ids: readonly string[]): Promise<ReadonlySet<string>> {
  const possible = ids.filter(isPossibleId).map(asBytes);
  if (possible.length === 0) return new Set();
  const [rows] = await pool.query<(RowDataPacket & { id: string })[]>(
    'SELECT id FROM outbox FORCE INDEX (outbox_id) WHERE id IN (?)',
    [possible],
  );
  return new Set(rows.map(({ id }) => id));
}

/**
 * Rows written before this may be gone; undefined while none is. To be asked after a scan: a row that retention took from
 * under the scan is then older than the answer.
 */
export async function outboxForgottenBefore(pool: Pool): Promise<string | undefined> {
  const [rows] = await pool.query<(RowDataPacket & { before: string | null })[]>(
    `SELECT ${iso('MAX(forgotten_before)')} AS \`before\` FROM outbox_partition`,
  );
  return rows[0]?.before ?? undefined;
}

/** The moment so many seconds before now, by the clock that the rows' times come from. */
export async function momentBefore(pool: Pool, seconds: number): Promise<string> {
  const [rows] = await pool.query<(RowDataPacket & { moment: string })[]>(
    `SELECT ${iso('TIMESTAMPADD(SECOND, -?, UTC_TIMESTAMP(6))')} AS moment`,
    [seconds],
  );
  return rows[0]?.moment ?? '';
}
