import type { Binding } from '@oncebox/message';
import { asBytes, type Pool, transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { readWorkers } from './problems.ts';
import { readOwner } from './workers.ts';

// What a person asks and changes of consumers' names: `oncebox consumers`. Of few rows, and seldom.

/** What is written down of a consumer in its schema. */
export interface KnownConsumer {
  /** Whether anything is. */
  readonly isKnown: boolean;
  /** Who the service is, as its consumers say at the broker. */
  readonly owner: string;
  readonly ordered: boolean;
  readonly queues: readonly string[];
  /** Where its workers run. */
  readonly live: readonly string[];
  readonly bindings: readonly KnownBinding[];
}

export interface KnownBinding extends Binding {
  readonly type: string;
  /** Whether a live worker has it; without any, whether the last one had it. */
  readonly wanted: boolean;
}

export async function readConsumer(pool: Pool, consumer: string): Promise<KnownConsumer> {
  return await transaction(pool, async (tx) => {
    const all = await readWorkers(tx, consumer);
    const [bindings] = await tx.query<(RowDataPacket & Binding & { type: string })[]>(
      `SELECT type, exchange, routing_key AS routingKey FROM consumer_bindings WHERE consumer = ?
        ORDER BY type, exchange, routing_key`,
      [asBytes(consumer)],
    );
    const [registered] = await tx.query<(RowDataPacket & { ordered: number })[]>(
      'SELECT ordered FROM consumers WHERE consumer = ?',
      [asBytes(consumer)],
    );
    const consuming = all.filter(({ isRefused }) => !isRefused);
    const live = consuming.filter(({ isLive }) => isLive);
    const workers = live.length > 0 ? live : consuming;
    const definitions = workers.map(({ definition }) => definition);
    const wanted = definitions.flatMap((definition) => definition.bindings.map(textOf));
    return {
      isKnown: all.length + bindings.length + registered.length > 0,
      owner: await readOwner(tx),
      ordered: definitions.some(({ ordered }) => ordered) || registered.some(({ ordered }) => ordered === 1),
      queues: definitions.flatMap(({ queues }) => queues),
      live: live.map(({ place }) => place),
      bindings: bindings.map(({ type, exchange, routingKey }) => {
        const binding = { type, exchange, routingKey };
        return { ...binding, wanted: wanted.includes(textOf(binding)) };
      }),
    };
  });
}

const textOf = ({ type, exchange, routingKey }: Omit<KnownBinding, 'wanted'>): string =>
  JSON.stringify([type, exchange, routingKey]);

/** Its binding is gone from the broker. A type without any is expected no longer. */
export async function forgetBinding(pool: Pool, consumer: string, binding: KnownBinding): Promise<void> {
  const [name, type] = [asBytes(consumer), asBytes(binding.type)];
  await transaction(pool, async (tx) => {
    await tx.query(
      'DELETE FROM consumer_bindings WHERE consumer = ? AND type = ? AND exchange = ? AND routing_key = ?',
      [name, type, asBytes(binding.exchange), asBytes(binding.routingKey)],
    );
    const [left] = await tx.query<RowDataPacket[]>(
      'SELECT 1 FROM consumer_bindings WHERE consumer = ? AND type = ? LIMIT 1',
      [name, type],
    );
    if (left.length === 0) await tx.query('DELETE FROM consumers WHERE consumer = ? AND type = ?', [name, type]);
  });
}

/**
 * What it has handled and given up stays: a consumer that is given its name again must not handle
 * it anew.
 */
export async function forgetConsumer(pool: Pool, consumer: string): Promise<void> {
  await transaction(pool, async (tx) => {
    for (const table of ['consumers', 'consumer_bindings', 'consumer_workers']) {
      await tx.query('DELETE FROM ?? WHERE consumer = ?', [table, asBytes(consumer)]);
    }
  });
}
