import { isDuplicateKey, type Pool, type Transaction, transaction, withOwnOptions } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import type { Consumer } from './consumer.ts';
import { liveWorkers } from './workers.ts';

type Registering = Pick<Consumer, 'name' | 'types' | 'replayedTypes' | 'ordered' | 'bindings'>;

/**
 * Writes down what a consumer handles, for `oncebox verify` and `oncebox replay`. A type that is there already keeps its `since`, or each
 * restart would excuse the consumer from all that came before; a type that no worker handles any more is no longer expected. What the
 * queue is bound for is written down too, and stays when the type goes.
 *
 * Looks first, because nearly always nothing has changed and then nothing is locked. Two workers that start together may both
 * find a type missing; the second insert then waits for the first, and 1062 says that all is well.
 */
export async function register(pool: Pool, consumer: Registering): Promise<void> {
  const { name, types, replayedTypes, ordered, bindings } = consumer;
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
      const elsewhere = (await liveWorkers(withOwnOptions(tx), name)).flatMap(({ definition }) =>
        Object.keys(definition.versions),
      );
      const handled = new Set([...types, ...elsewhere]);
      for (const type of known.keys().filter((each) => !handled.has(each))) {
        await withOwnOptions(tx).execute('DELETE FROM consumers WHERE consumer = ? AND type = ?', [name, type]);
      }
      await registerBindings(tx, name, bindings);
    },
    { timeoutMs: 10_000 },
  );
}

/** Reads first, as above. A binding that is there already keeps its mark until the worker's next announcement. */
async function registerBindings(tx: Transaction, name: string, bindings: Consumer['bindings']): Promise<void> {
  const keyOf = (binding: Consumer['bindings'][number]): string =>
    JSON.stringify([binding.type, binding.exchange, binding.routingKey]);
  const [rows] = await withOwnOptions(tx).execute<(RowDataPacket & Consumer['bindings'][number])[]>(
    'SELECT type, exchange, routing_key AS routingKey FROM consumer_bindings WHERE consumer = ?',
    [name],
  );
  const known = new Set(rows.map(keyOf));
  for (const binding of bindings.filter((each) => !known.has(keyOf(each)))) {
    await withOwnOptions(tx)
      .execute('INSERT INTO consumer_bindings (consumer, type, exchange, routing_key) VALUES (?, ?, ?, ?)', [
        name,
        binding.type,
        binding.exchange,
        binding.routingKey,
      ])
      .catch((error: unknown) => {
        if (!isDuplicateKey(error)) throw error;
      });
  }
}
