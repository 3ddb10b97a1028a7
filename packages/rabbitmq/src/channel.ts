import type { Channel, ChannelModel } from 'amqplib';
import { isRefusedAs } from './errors.ts';

/**
 * A channel and its end, which nobody else may be told of: an error that no one listens for would
 * end the process.
 */
export interface LiveChannel {
  readonly channel: Channel;
  /** Aborted when the channel is closed. */
  readonly closed: AbortSignal;
  /** Resolves when the channel is closed, with the error if one closed it. */
  readonly ended: Promise<Error | undefined>;
  close(): Promise<void>;
}

export async function openChannel(connection: ChannelModel): Promise<LiveChannel> {
  const channel = await connection.createChannel();
  const closing = new AbortController();
  const ended = Promise.withResolvers<Error | undefined>();
  let failure: Error | undefined;
  channel.on('error', (error) => {
    failure = error;
  });
  channel.on('close', () => {
    closing.abort();
    ended.resolve(failure);
  });
  return {
    channel,
    closed: closing.signal,
    ended: ended.promise,
    async close() {
      // It rejects when the channel is closed already, and never settles when the connection dies
      // under it.
      await Promise.race([channel.close().catch(() => undefined), ended.promise]);
    },
  };
}

/** Runs `work` on a channel of its own: what a broker refuses closes the channel. */
export async function onChannelOfItsOwn<T>(
  connection: ChannelModel,
  work: (channel: Channel) => Promise<T>,
): Promise<T> {
  const { channel, close } = await openChannel(connection);
  try {
    return await work(channel);
  } finally {
    await close();
  }
}

/** @returns undefined for what does not exist. */
export async function ifThere<T>(
  connection: ChannelModel,
  work: Parameters<typeof onChannelOfItsOwn<T>>[1],
): Promise<T | undefined> {
  try {
    return await onChannelOfItsOwn(connection, work);
  } catch (error) {
    if (isRefusedAs(404, error)) return undefined;
    throw error;
  }
}
