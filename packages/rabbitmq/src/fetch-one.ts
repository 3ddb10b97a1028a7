import type { ConsumeMessage, GetMessage } from 'amqplib';
import type { LiveChannel } from './channel.ts';

/** @returns one message, or undefined when the queue has none or the channel is closed. */
export async function fetchOne(
  queue: string,
  { channel, ended }: Pick<LiveChannel, 'channel' | 'ended'>,
): Promise<ConsumeMessage | undefined> {
  const fetch = async (): Promise<GetMessage | false> => {
    // A quorum queue writes each `get` to disk, and most queues are empty at a start.
    const { messageCount } = await channel.checkQueue(queue);
    return messageCount > 0 && (await channel.get(queue));
  };
  // Calls may never settle when the connection dies under them. A refusal closes the channel, which
  // its owner hears of.
  const got = await Promise.race([fetch().catch(() => undefined), ended]);
  if (got === undefined || got === false || got instanceof Error) return undefined;
  return deliveryOf(got);
}

/** Only a subscription's messages have a tag of their subscription. */
export const deliveryOf = (got: GetMessage): ConsumeMessage => ({ ...got, fields: { ...got.fields, consumerTag: '' } });
