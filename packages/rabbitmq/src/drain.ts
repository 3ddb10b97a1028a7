import { setTimeout as delay } from 'node:timers/promises';
import { classOf, type DeadLetters, deadQueue } from '@oncebox/message';
import type { ConsumeMessage } from 'amqplib';
import { openChannel } from './channel.ts';
import { deadLetterOf } from './dead-letter.ts';
import { watchDepth } from './depth.ts';
import type { Logger } from './logger.ts';
import { pauseMs, persist } from './persist.ts';
import { idsOf } from './session.ts';
import { subscribe } from './subscription.ts';
import type { Supervisor } from './supervisor.ts';
import { declareDeadQueue } from './topology.ts';

/** Few: while they cannot be kept they wait in hand, and nothing more is taken. */
const PREFETCH = 5;

export interface DrainOptions {
  readonly consuming: Supervisor;
  /** Of the consumer whose dead queue it is. */
  readonly name: string;
  readonly deadLetters: DeadLetters;
  /** Of the consumer's own queue. */
  readonly deliveryLimit: number;
  readonly logger: Logger;
  readonly stop: AbortSignal;
}

/**
 * Moves what comes to a consumer's dead queue into its dead letters: kept first, then acknowledged, so that a copy is there at least
 * once. While the store is away, what is in hand waits and the rest stays in the queue, which has no delivery limit.
 *
 * @returns when `stop` is aborted and nothing is in hand.
 */
export async function drainDeadQueue(options: DrainOptions): Promise<void> {
  const { consuming, name, deadLetters, deliveryLimit, logger, stop } = options;
  const stopped = new Promise<undefined>((resolve) => stop.addEventListener('abort', () => resolve(undefined)));

  const live = async (): Promise<void> => {
    const connection = await Promise.race([consuming.connected(), stopped]);
    if (connection === undefined) return;
    const opened = await openChannel(connection);
    const { channel, closed, ended, close } = opened;
    const inHand = new Set<Promise<void>>();
    const ending = AbortSignal.any([closed, stop]);

    const keep = async (message: ConsumeMessage): Promise<void> => {
      for (let failures = 0; !ending.aborted; failures++) {
        try {
          await deadLetters.keep(deadLetterOf(message, name, deliveryLimit));
          if (!closed.aborted) channel.ack(message);
          return;
        } catch (error) {
          const fields = { consumer: name, ...idsOf(message), error: classOf(error) };
          logger.warn(fields, `a dead letter could not be kept; it stays in ${deadQueue(name)} and is tried again`);
          // Rejects only because of `ending`.
          await delay(pauseMs(failures + 2), undefined, { signal: ending }).catch(() => undefined);
        }
      }
    };

    try {
      await declareDeadQueue(channel, name);
      const cancelled = Promise.withResolvers<undefined>();
      const subscription = subscribe(channel, deadQueue(name), (message) => {
        if (message === null) return cancelled.resolve(undefined);
        const work = keep(message);
        inHand.add(work);
        void work.finally(() => inHand.delete(work));
      });
      await subscription.widen(PREFETCH);
      void watchDepth(opened, name, deadQueue(name), () => inHand.size);
      const failure = await Promise.race([ended, stopped, cancelled.promise]);
      await subscription.widen(0);
      // Not for those of a channel that is gone: the broker sends them again, and whoever keeps one twice keeps one.
      while (inHand.size > 0 && !closed.aborted) await Promise.race([Promise.all(inHand), ended]);
      if (failure !== undefined) throw failure;
    } finally {
      await close();
    }
  };
  await persist(live, stop, (error) => {
    logger.warn({ consumer: name, error: classOf(error) }, `not draining ${deadQueue(name)}; it will be tried again`);
  });
}
