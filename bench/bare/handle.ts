import { CustomerCreated } from '@oncebox/contracts';
import { fromWire } from '@oncebox/message';
import { createPool, transaction } from '@oncebox/mysql';
import { type ConsumeMessage, connect } from 'amqplib';
import { z } from 'zod';
import { welcomeEmail } from '../../apps/worker/src/welcome-email.ts';
import { openAcks } from '../../packages/rabbitmq/src/acks.ts';
import { settings } from './parent.ts';

/**
 * The worker's own handler without an inbox, so that what the inbox costs shows: consume, run the handler in a transaction, commit, ack.
 * In batches, what is at hand goes into one transaction, up to `batch` messages, and acknowledgements are gathered as the worker's
 * are. There is no log, no deadline and no order of keys. Runs until it is stopped.
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
const acks = openAcks(welcomeEmail.name, { channel, closed: new AbortController().signal });
const [type, version] = [CustomerCreated.type, CustomerCreated.version];
const handling = welcomeEmail.handlingOf(type, version);
if (handling === undefined) throw new Error(`${welcomeEmail.name} handles no ${type} v${version}`);
const { run } = handling;
const waiting: ConsumeMessage[] = [];
/** Transactions under way at once; of batches as many as the worker's two lanes, so that what waits meanwhile is one batch here too. */
const atOnce = batch === 1 ? prefetch : 2;
let underWay = 0;
let scheduled = false;
await channel.consume(queue, (message) => {
  if (message === null) throw new Error('The broker ended the subscription');
  acks.expect(message);
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
  const { add, work } = run();
  for (const message of messages) add(fromWire({ ...message, routingKey: message.fields.routingKey }));
  await transaction(pool, work);
  for (const message of messages) acks.ack(message);
}
