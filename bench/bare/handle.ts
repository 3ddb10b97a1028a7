import { fromWire } from '@oncebox/message';
import { createPool, transaction } from '@oncebox/mysql';
import { type ConsumeMessage, connect } from 'amqplib';
import { z } from 'zod';
import { welcomeEmail } from '../../apps/worker/src/welcome-email.ts';
import { settings } from './parent.ts';

/**
 * The worker's own handler without an inbox, so that what the inbox costs shows: consume, run the handler in a transaction, commit, ack.
 * In batches, what is at hand goes into one transaction, up to `batch` messages. Runs until it is stopped.
 */

const { amqpUrl, databaseUrl, queue, prefetch, batch } = settings(
  z.object({
    amqpUrl: z.string(),
    databaseUrl: z.string(),
    queue: z.string(),
    prefetch: z.int(),
    /** Messages of one transaction. */
    batch: z.int(),
  }),
);
/** As many as the worker has. */
const pool = createPool(databaseUrl, { connections: 20 });
const connection = await connect(amqpUrl, { noDelay: true });
const channel = await connection.createChannel();
await channel.prefetch(prefetch);
const waiting: ConsumeMessage[] = [];
/** Transactions under way at once; of batches as many as the worker's two lanes, so that what waits meanwhile is one batch here too. */
const atOnce = batch === 1 ? prefetch : 2;
let underWay = 0;
let scheduled = false;
await channel.consume(queue, (message) => {
  if (message === null) throw new Error('The broker ended the subscription');
  waiting.push(message);
  if (scheduled) return;
  scheduled = true;
  // After everything that came in the same packet.
  setImmediate(() => {
    scheduled = false;
    begin();
  });
});

function begin(): void {
  while (waiting.length > 0 && underWay < atOnce) {
    underWay += 1;
    void handle(waiting.splice(0, batch)).then(() => {
      underWay -= 1;
      begin();
    });
  }
}

async function handle(messages: readonly ConsumeMessage[]): Promise<void> {
  await transaction(pool, async (tx) => {
    for (const message of messages) {
      const received = fromWire({ ...message, routingKey: message.fields.routingKey });
      const handling = welcomeEmail.handlingOf(received.type, received.version);
      if (handling === undefined) throw new Error(`${welcomeEmail.name} handles no ${received.type}`);
      const work = await handling.read(received)(new AbortController().signal);
      await work(tx);
    }
  });
  for (const message of messages) channel.ack(message);
}
