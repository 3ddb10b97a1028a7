import type { Channel, ConsumeMessage } from 'amqplib';

/** A queue's messages on one channel, as many ahead as asked for. */
export interface Subscription {
  /** How many unsettled messages the broker may have sent ahead; 0 while it sends none. */
  readonly width: number;
  /** Changes that; resolves when the broker has agreed, or the channel is closed. */
  widen(width: number): Promise<void>;
}

/** @param onMessage gets null when the broker ends the subscription, because its queue was deleted for instance. */
export function subscribe(
  channel: Channel,
  queue: string,
  onMessage: (message: ConsumeMessage | null) => void,
): Subscription {
  let wanted = 0;
  let actual = 0;
  let consumer: string | undefined;
  let turn = Promise.resolve();

  // A prefetch count holds for the consumers made after it, so another width takes another consumer on the same channel.
  // What the cancelled one was sent stays in hand and can be settled.
  const adjust = async (): Promise<void> => {
    if (actual === wanted) return;
    actual = 0;
    if (consumer !== undefined) await channel.cancel(consumer);
    consumer = undefined;
    const width = wanted;
    if (width === 0) return;
    await channel.prefetch(width);
    ({ consumerTag: consumer } = await channel.consume(queue, onMessage));
    actual = width;
  };

  return {
    get width() {
      return actual;
    },
    widen(width) {
      wanted = width;
      // One change at a time. A call fails only with its channel, and whoever opened the channel hears of that.
      turn = turn.then(adjust).catch(() => {
        actual = 0;
      });
      return turn;
    },
  };
}
