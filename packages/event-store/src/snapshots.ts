import { type Transaction, withOwnOptions } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import type { Aggregate, Event, Stream } from './aggregate.ts';
import type { Reader } from './events.ts';

/**
 * The latest snapshot of a stream, if there is one that can be read. A snapshot is only a cache: one of another shape, or one that
 * its parser refuses, counts as none, and the table may be emptied at any time.
 */
export async function readSnapshot<State, E extends Event>(
  reader: Reader,
  { category, snapshots }: Aggregate<State, E>,
  id: string,
): Promise<Stream<State> | undefined> {
  if (snapshots === undefined) return undefined;
  const [rows] = await withOwnOptions(reader).execute<(RowDataPacket & { version: number; state: string })[]>(
    'SELECT version, state FROM snapshots WHERE category = ? AND stream_id = ? AND shape = ?',
    [category, id, snapshots.shape],
  );
  const [row] = rows;
  if (row === undefined) return undefined;
  try {
    return { id, version: row.version, state: snapshots.state.parse(JSON.parse(row.state)) };
  } catch {
    // Whatever is wrong with it, the events tell the same and more.
    return undefined;
  }
}

/** One row a stream: in the transaction of the append, so a snapshot is never ahead of its stream. */
export async function writeSnapshot<State, E extends Event>(
  tx: Transaction,
  { category, snapshots }: Aggregate<State, E>,
  before: number,
  { id, version, state }: Stream<State>,
): Promise<void> {
  if (snapshots === undefined) return;
  if (Math.floor(before / snapshots.every) === Math.floor(version / snapshots.every)) return;
  await withOwnOptions(tx).execute(
    `INSERT INTO snapshots (category, stream_id, shape, version, state) VALUES (?, ?, ?, ?, ?)
     ON DUPLICATE KEY UPDATE shape = VALUES(shape), version = VALUES(version), state = VALUES(state)`,
    [category, id, snapshots.shape, version, JSON.stringify(state)],
  );
}
