import { setTimeout as delay } from 'node:timers/promises';
import type { LiveChannel } from './channel.ts';
import { isHeard, signal } from './signals.ts';

const EVERY_MS = 5_000;

/**
 * Tells how many messages a queue has ready, until its channel is closed. Asked of the broker by AMQP, on a channel that is there
 * already: the management API would want rights and an address of its own, and its numbers are seconds old. Never rejects.
 *
 * @param inHand messages that were taken from it and are to be counted all the same.
 */
export async function watchDepth(
  { channel, closed }: LiveChannel,
  consumer: string,
  queue: string,
  inHand: () => number = () => 0,
): Promise<void> {
  try {
    while (!closed.aborted) {
      if (isHeard('oncebox:consumer:depth')) {
        const { messageCount } = await channel.checkQueue(queue);
        signal('oncebox:consumer:depth', { consumer, queue, messages: messageCount + inHand() });
      }
      await delay(EVERY_MS, undefined, { signal: closed });
    }
  } catch {
    // The channel is gone: a queue that was deleted closes it, too. Whoever opened it hears of that and opens another.
  }
}
