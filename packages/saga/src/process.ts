import { type Handling, on } from '@oncebox/inbox';
import { causedBy, decodeLineage, type Lineage, repliesTo } from '@oncebox/message';
import { assertTransaction, type Transaction } from '@oncebox/mysql';
import { outbox } from '@oncebox/outbox';
import type { Saga } from './definition.ts';
import { answered, begin, type Instance, type Next } from './machine.ts';
import { insert, lock, remember, type SagaKey, type StoredSaga, update } from './store.ts';

/**
 * Starts a saga: its state and its first command are part of the transaction. Another start of the same id changes nothing.
 *
 * @param id what the saga is about, such as the id of an order: one saga of a name for each.
 * @throws ZodError for data that its schema refuses; what `outbox.add` throws.
 */
export async function startSaga<Data>(
  tx: Transaction,
  saga: Saga<Data>,
  { id, data, lineage }: { id: string; data: Data; lineage: Lineage },
): Promise<void> {
  assertTransaction(tx);
  const next = begin({ saga, id, data: saga.schema.parse(data) });
  const key = { name: saga.name, id };
  if (!(await insert(tx, key, JSON.stringify(data), lineage, next))) return;
  await announce(tx, key, next, lineage);
}

/**
 * Handles the answers to a saga's commands; one of the handlers of the consumer that has the saga's name. The answer, what becomes
 * of the saga and the next command are one transaction.
 */
export function answersTo(saga: Saga): Handling {
  return on(repliesTo(saga.name), {
    async handle(tx, message) {
      const { replyTo, outcome } = message.payload;
      if (replyTo.saga !== saga.name) return; // of another saga, whose steps these are not
      const found = await lock(tx, { name: replyTo.saga, id: replyTo.id });
      // A saga that is unknown here, or has ended so long ago that it is forgotten: nothing to change.
      if (found === undefined) return;
      const next = answered(instanceOf(saga, found), found.position, replyTo, outcome);
      if (next !== undefined) await moveOn(tx, found, next, causedBy(message));
    },
  });
}

/** @internal Writes where a saga stands from now on; the caller holds its lock. */
export async function moveOn(tx: Transaction, key: SagaKey, next: Next, lineage: Lineage): Promise<void> {
  await update(tx, key, next);
  await announce(tx, key, next, lineage);
}

/** @internal @throws ZodError when the data was stored by another version of the definition that this one cannot read. */
export const instanceOf = (saga: Saga, { id, data }: StoredSaga): Instance => ({
  saga,
  id,
  data: saga.schema.parse(JSON.parse(data)),
});

/** @internal */
export const lineageOf = ({ lineage }: StoredSaga): Lineage => decodeLineage(lineage);

async function announce(tx: Transaction, key: SagaKey, { position, command, happened }: Next, lineage: Lineage) {
  await remember(tx, key, happened);
  if (command !== undefined) await outbox.add(tx, { ...command.message, lineage });
  if (position.state !== 'running') await remember(tx, key, endOf(position));
}

const endOf = ({ state, problem }: Next['position']): string => (problem === null ? state : `${state}: ${problem}`);
