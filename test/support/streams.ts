import { randomUUID } from 'node:crypto';
import type { Channel, ConsumeMessage } from 'amqplib';

/** All that a stream holds. Its end is a message of ours, because a broker does not say where a stream ends. */
export async function readStream(channel: Channel, stream: string): Promise<ConsumeMessage[]> {
  const end = randomUUID();
  const found: ConsumeMessage[] = [];
  const all = Promise.withResolvers<void>();
  await channel.prefetch(100);
  const { consumerTag } = await channel.consume(
    stream,
    (message) => {
      if (message === null) return all.reject(new Error(`${stream} was deleted`));
      if (message.properties.messageId === end) all.resolve();
      else if (message.properties.type !== 'end') found.push(message);
      channel.ack(message);
    },
    { arguments: { 'x-stream-offset': 'first' } },
  );
  channel.sendToQueue(stream, Buffer.alloc(0), { messageId: end, type: 'end' });
  await all.promise;
  await channel.cancel(consumerTag);
  return found;
}
