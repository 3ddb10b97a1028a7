import { connect } from 'amqplib';
import { z } from 'zod';
import { numberOf } from '../messages.ts';
import { report, settings } from './parent.ts';

/** Takes each message and acknowledges it: what the broker and amqplib can deliver when nothing is done with it. */

const { amqpUrl, queue, prefetch, count } = settings(
  z.object({ amqpUrl: z.string(), queue: z.string(), prefetch: z.int(), count: z.int() }),
);
const connection = await connect(amqpUrl, { noDelay: true });
const channel = await connection.createChannel();
await channel.prefetch(prefetch);
const seen = new Set<number>();
const all = Promise.withResolvers<void>();
let begin = 0;
let start = 0;
await channel.consume(queue, (message) => {
  if (message === null) return all.reject(new Error('The broker ended the subscription'));
  seen.add(numberOf(message.properties.messageId));
  channel.ack(message);
  // As for the others, the first twentieth is for getting warm.
  if (start === 0 && seen.size >= count / 20) [begin, start] = [seen.size, performance.now()];
  if (seen.size === count) all.resolve();
});
await all.promise;
const seconds = (performance.now() - start) / 1_000;
await channel.close();
await connection.close();
report({ rate: (count - begin) / seconds, different: seen.size });
