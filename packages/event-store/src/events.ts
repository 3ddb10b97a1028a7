import { decodeLineage, type Lineage } from '@oncebox/message';
import { asBytes, type Pool, type Transaction, withOwnOptions } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import type { Aggregate, Event, Recorded } from './aggregate.ts';
import { EventStoreError } from './errors.ts';

/** A server that has fallen silent must not keep a connection of the pool. */
const READ_TIMEOUT_MS = 5_000;

/** A pool reads what is committed; a transaction sees its own appends too. */
export type Reader = Pick<Pool | Transaction, 'execute'>;

type Row = RowDataPacket & {
  readonly id: string;
  readonly version: number;
  readonly type: string;
  readonly data: string;
  readonly lineage: string | null;
  readonly occurredAt: Date;
};

const COLUMNS = 'stream_id AS id, version, type, data, lineage, occurred_at AS occurredAt';

/**
 * What happened, in order, after `afterVersion`. Events are never changed and have no gaps, so what one statement sees is a prefix of
 * the history, whatever is appended meanwhile. The primary key is the order.
 *
 * @throws EventStoreError ONCEBOX_UNREADABLE_EVENT
 */
export async function readEvents<State, E extends Event>(
  reader: Reader,
  aggregate: Aggregate<State, E>,
  id: string,
  afterVersion = 0,
): Promise<Recorded<E>[]> {
  const [rows] = await withOwnOptions(reader).execute<Row[]>({
    sql: `SELECT ${COLUMNS} FROM events WHERE category = ? AND stream_id = ? AND version > ? ORDER BY version`,
    values: [aggregate.category, id, afterVersion],
    timeout: READ_TIMEOUT_MS,
  });
  return rows.map((row) => recorded(aggregate, row));
}

/**
 * Whole histories, by stream, in one statement: ranges of the primary key.
 */
export async function readStreams<State, E extends Event>(
  reader: Pick<Transaction, 'query'>,
  aggregate: Aggregate<State, E>,
  ids: readonly string[],
): Promise<ReadonlyMap<string, readonly Recorded<E>[]>> {
  const histories = new Map<string, Recorded<E>[]>(ids.map((id) => [id, []]));
  if (ids.length === 0) return histories;
  const [rows] = await withOwnOptions(reader).query<Row[]>(
    `SELECT ${COLUMNS} FROM events WHERE category = ? AND stream_id IN (?) ORDER BY stream_id, version`,
    [aggregate.category, ids.map(asBytes)],
  );
  for (const row of rows) histories.get(row.id)?.push(recorded(aggregate, row));
  return histories;
}

function recorded<State, E extends Event>(aggregate: Aggregate<State, E>, row: Row): Recorded<E> {
  const { id, version, type, data, occurredAt } = row;
  try {
    const event = aggregate.event.parse({ type, data: JSON.parse(data) });
    return { ...event, version, occurredAt, lineage: decodeLineage(row.lineage) };
  } catch (cause) {
    throw new EventStoreError(
      'ONCEBOX_UNREADABLE_EVENT',
      `${aggregate.category} ${id}, version ${version}: its parser does not accept the stored ${type}. ` +
        'What was ever stored must stay readable: let the parser take the old shape as well',
      { cause },
    );
  }
}

/** Null when there is none, so that most rows store nothing. */
export const encodeLineage = (lineage: Lineage): string | null =>
  Object.values(lineage).some((value) => value !== undefined) ? JSON.stringify(lineage) : null;
