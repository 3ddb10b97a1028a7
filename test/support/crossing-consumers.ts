import { createInbox, defineConsumer, NonRetryableError, on } from '@oncebox/inbox';
import { defineMessage } from '@oncebox/message';
import type { Pool } from '@oncebox/mysql';
import { z } from 'zod';

/** What the consumers of a crossing handle, and how they fail. */

/** Its first message fails once in each consumer, so that it waits for a retry. */
export const STUMBLES = "o\\'brien";
/** Its first message is a dead letter of each consumer, until it is replayed. */
export const DIES = "x' OR SLEEP(3)) -- ";

export const Crossed = defineMessage({
  type: 'Crossed',
  version: 1,
  aggregateType: 'crossing',
  aggregateId: ({ key }) => key,
  routingKey: 'crossing.crossed',
  payload: z.strictObject({ key: z.string(), n: z.int(), text: z.string() }),
});
export const CONSUMERS = ['plain', 'ordered'] as const;

/** @param dies whether the message that is to be a dead letter still fails. */
export function inboxOf(pool: Pool, name: (typeof CONSUMERS)[number], dies: () => boolean) {
  let stumbled = false;
  const definition = defineConsumer({
    name,
    ordered: name === 'ordered',
    retryDelaysMs: [50, 50, 50],
    handlers: [
      on(Crossed, {
        async handle(tx, { id, payload }) {
          const { key, n } = payload;
          // By way of the client's quoting, which handlers use as well.
          await tx.query('INSERT INTO effects (consumer, message_id, ordering_key, body) VALUES (?)', [
            [name, Buffer.from(id), key, JSON.stringify(payload)],
          ]);
          if (n === 1 && key === DIES && dies()) throw new NonRetryableError('a fall');
          if (n === 1 && key === STUMBLES && !stumbled) {
            stumbled = true;
            throw new Error('a stumble');
          }
        },
      }),
    ],
  });
  return createInbox(pool, definition);
}
