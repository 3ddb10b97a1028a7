import { asBytes, type Pool } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { iso } from './inspect.ts';

export interface Handled {
  readonly consumer: string;
  readonly id: string;
  readonly handledAt: string;
}

/**
 * The ids that the inbox remembers, from `from` on in the order of their bytes, in pages. UUIDv7
 * ids begin with their time, so that a time gives a range of the primary key for each consumer.
 * Memory stays bounded whatever the number.
 */
export async function* scanHandled(pool: Pool, from: string): AsyncGenerator<readonly Handled[]> {
  const [consumers] = await pool.query<(RowDataPacket & { consumer: string })[]>(
    'SELECT DISTINCT consumer FROM processed_messages ORDER BY consumer',
  );
  for (const { consumer } of consumers) {
    let after: Buffer | undefined;
    for (;;) {
      const [rows] = await pool.query<(RowDataPacket & { id: Buffer; handledAt: string })[]>(
        `SELECT message_id AS id, ${iso('processed_at')} AS handledAt FROM processed_messages FORCE INDEX (PRIMARY)
          WHERE consumer = ? AND message_id ${after === undefined ? '>=' : '>'} ? ORDER BY message_id LIMIT 1000`,
        [asBytes(consumer), after ?? asBytes(from)],
      );
      const last = rows.at(-1);
      if (last === undefined) break;
      yield rows.map(({ id, handledAt }) => ({ consumer, id: id.toString('utf8'), handledAt }));
      after = last.id;
    }
  }
}

/**
 * Those of these messages that wait in `held_messages` for this consumer.
 *
 * @param ids in hundreds: each is one probe of held_messages_message.
 */
export async function readHeld(pool: Pool, consumer: string, ids: readonly string[]): Promise<ReadonlySet<string>> {
  if (ids.length === 0) return new Set();
  const [rows] = await pool.query<(RowDataPacket & { id: Buffer })[]>(
    `SELECT message_id AS id FROM held_messages FORCE INDEX (held_messages_message)
      WHERE consumer = ? AND message_id IN (?)`,
    [asBytes(consumer), ids.map(asBytes)],
  );
  return new Set(rows.map(({ id }) => id.toString('utf8')));
}
