import { toWire } from '@oncebox/message';
import { type ConfirmChannel, connect } from 'amqplib';
import { z } from 'zod';
import { customerCreated, outgoing, QUEUE } from '../messages.ts';
import { report, settings } from './parent.ts';

/**
 * What one process can publish with confirms and `mandatory` and nothing else to do: the messages are encoded before the clock
 * starts. Each window is measured with all of them; those of the last one are left in the queue.
 */

const { amqpUrl, source, count, bytes, windows, to } = settings(
  z.object({
    amqpUrl: z.string(),
    source: z.string(),
    count: z.int(),
    bytes: z.int(),
    /** Most unconfirmed messages; one run for each. */
    windows: z.array(z.int()),
    /** A consumer's queue, which gets customers, instead of the benchmark's own. */
    to: z.string().optional(),
  }),
);

const queue = to ?? QUEUE;
const messages = Array.from({ length: count }, (_, n) => {
  const message = to === undefined ? outgoing(n, bytes, source) : customerCreated(n);
  const { body, properties } = toWire(message);
  const route = to === undefined ? message : { exchange: '', routingKey: to };
  return { exchange: route.exchange, key: route.routingKey, body, options: { ...properties, mandatory: true } };
});

const connection = await connect(amqpUrl, { noDelay: true });
const channel = await connection.createConfirmChannel();
channel.on('return', () => {
  throw new Error('The broker returned a message: no queue is bound for it');
});

const results: { window: number; rate: number }[] = [];
if (to === undefined) await publish(channel, Math.min(2_000, count), windows[0] ?? 1_000); // warm up
for (const window of windows) {
  await channel.purgeQueue(queue);
  const seconds = await publish(channel, count, window);
  results.push({ window, rate: count / seconds });
}
await connection.close();
report(results);

/** @returns seconds from the first message to the last confirm */
function publish(on: ConfirmChannel, howMany: number, window: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const start = performance.now();
    let [sent, confirmed] = [0, 0];
    let writable = true;
    const onConfirm = (error: unknown): void => {
      if (error) reject(error);
      confirmed += 1;
      if (confirmed === howMany) resolve((performance.now() - start) / 1_000);
      else pump();
    };
    const pump = (): void => {
      while (writable && sent < howMany && sent - confirmed < window) {
        const message = messages[sent];
        if (message === undefined) return;
        sent += 1;
        writable = on.publish(message.exchange, message.key, message.body, message.options, onConfirm);
        if (!writable) {
          on.once('drain', () => {
            writable = true;
            pump();
          });
        }
      }
    };
    pump();
  });
}
