import { isDuplicateKey, type Pool, transaction, withOwnOptions } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import type { Consumer } from './consumer.ts';

type Registering = Pick<Consumer, 'name' | 'types' | 'replayedTypes' | 'ordered'>;

/**
 * Writes down what a consumer handles, for `oncebox verify` and `oncebox replay`. A type that is there already keeps its `since`, or each
 * restart would excuse the consumer from all that came before; a type that is no longer handled is no longer expected.
 *
 * Looks first, because nearly always nothing has changed and then nothing is locked. Two workers that start together may both
 * find a type missing; the second insert then waits for the first, and 1062 says that all is well.
 */
export async function register(pool: Pool, { name, types, replayedTypes, ordered }: Registering): Promise<void> {
  const isOrdered = ordered === undefined ? 0 : 1;
  await transaction(
    pool,
    async (tx) => {
      const [rows] = await withOwnOptions(tx).execute<
        (RowDataPacket & { type: string; replays: number; ordered: number })[]
      >('SELECT type, replays, ordered FROM consumers WHERE consumer = ?', [name]);
      const known = new Map(rows.map((row) => [row.type, row]));
      for (const type of types.toSorted()) {
        const [before, replays] = [known.get(type), replayedTypes.includes(type) ? 1 : 0];
        if (before === undefined) {
          await withOwnOptions(tx)
            .execute('INSERT INTO consumers (consumer, type, replays, ordered) VALUES (?, ?, ?, ?)', [
              name,
              type,
              replays,
              isOrdered,
            ])
            .catch((error: unknown) => {
              if (!isDuplicateKey(error)) throw error;
            });
        } else if (before.replays !== replays || before.ordered !== isOrdered) {
          await withOwnOptions(tx).execute(
            'UPDATE consumers SET replays = ?, ordered = ? WHERE consumer = ? AND type = ?',
            [replays, isOrdered, name, type],
          );
        }
      }
      for (const type of known.keys().filter((each) => !types.includes(each))) {
        await withOwnOptions(tx).execute('DELETE FROM consumers WHERE consumer = ? AND type = ?', [name, type]);
      }
    },
    { timeoutMs: 10_000 },
  );
}
