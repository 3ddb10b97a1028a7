import { isDuplicateKey, type Pool, transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import type { Consumer } from './consumer.ts';

/**
 * Writes down what a consumer handles, for `oncebox verify`. A type that is there already keeps its `since`, or each restart would
 * excuse the consumer from all that came before; a type that is no longer handled is no longer expected.
 *
 * Looks first, because nearly always nothing has changed and then nothing is locked. Two workers that start together may both
 * find a type missing; the second insert then waits for the first, and 1062 says that all is well.
 */
export async function register(pool: Pool, { name, types }: Pick<Consumer, 'name' | 'types'>): Promise<void> {
  await transaction(
    pool,
    async (tx) => {
      const [rows] = await tx.execute<RowDataPacket[]>('SELECT type FROM consumers WHERE consumer = ?', [name]);
      const known = new Set(rows.map((row) => String(row['type'])));
      for (const type of types.filter((each) => !known.has(each)).sort()) {
        await tx
          .execute('INSERT INTO consumers (consumer, type) VALUES (?, ?)', [name, type])
          .catch((error: unknown) => {
            if (!isDuplicateKey(error)) throw error;
          });
      }
      for (const type of [...known].filter((each) => !types.includes(each))) {
        await tx.execute('DELETE FROM consumers WHERE consumer = ? AND type = ?', [name, type]);
      }
    },
    { timeoutMs: 10_000 },
  );
}
