import { type Channel, connect } from 'amqplib';

/** What the broker was given, in the order in which it took it. */
export interface Recording {
  /** All messages so far, duplicates too. */
  read(): Promise<readonly Seen[]>;
}

export interface Seen {
  readonly id: string;
  /** The aggregate, which is the ordering key. */
  readonly key: string;
}

const EXCHANGE = 'oncebox.events';
const QUEUE = 'recording';

/**
 * Binds a durable queue for everything, and reads it when asked: no connection is kept, so that the broker may be restarted
 * meanwhile. It hides what is unroutable, as any binding does: a test of that binds its own.
 */
export async function record(amqpUrl: string): Promise<Recording> {
  await withChannel(amqpUrl, async (channel) => {
    await channel.assertExchange(EXCHANGE, 'topic', { durable: true });
    await channel.assertQueue(QUEUE, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
    await channel.bindQueue(QUEUE, EXCHANGE, '#');
  });
  const seen: Seen[] = [];
  return {
    async read() {
      await withChannel(amqpUrl, async (channel) => {
        const { messageCount } = await channel.checkQueue(QUEUE);
        if (messageCount === 0) return;
        const { promise: all, resolve } = Promise.withResolvers<void>();
        let left = messageCount;
        await channel.consume(
          QUEUE,
          (message) => {
            if (message === null) return; // the broker's cancellation
            const { messageId, headers } = message.properties;
            seen.push({ id: String(messageId), key: String(headers?.['cloudEvents:subject']) });
            left -= 1;
            if (left === 0) resolve();
          },
          { noAck: true },
        );
        await all;
      });
      return seen;
    },
  };
}

/** Messages that wait in a queue; 0 when there is none of that name. */
export async function depthOf(amqpUrl: string, queue: string): Promise<number> {
  return withChannel(amqpUrl, async (channel) => {
    const { messageCount } = await channel.checkQueue(queue);
    return messageCount;
  }).catch((error: unknown) => {
    if (error instanceof Error && Reflect.get(error, 'code') === 404) return 0;
    throw error;
  });
}

async function withChannel<T>(amqpUrl: string, use: (channel: Channel) => Promise<T>): Promise<T> {
  const connection = await connect(amqpUrl, { clientProperties: { connection_name: 'the test, which looks' } });
  connection.on('error', () => undefined); // the call under way rejects
  try {
    const channel = await connection.createChannel();
    channel.on('error', () => undefined); // likewise
    return await use(channel);
  } finally {
    await connection.close();
  }
}
