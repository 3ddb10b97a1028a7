import { setTimeout as delay } from 'node:timers/promises';
import { type DeadLetters, failureOf } from '@oncebox/message';
import { BrokerError, reasonOf } from './errors.ts';
import type { Logger } from './logger.ts';
import { persist } from './persist.ts';
import { sendingOf } from './record.ts';
import type { Sender } from './sender.ts';
import { sendCopy } from './wrap.ts';

export interface ReplayOptions {
  readonly sender: Sender;
  /** Of the consumer, and of its queue. */
  readonly name: string;
  readonly deadLetters: DeadLetters;
  /** Whether it makes sense to look now. */
  readonly isReady: () => boolean;
  readonly everyMs: number;
  readonly logger: Logger;
  readonly stop: AbortSignal;
}

/**
 * Sends the dead letters that are marked for it to their consumer's own queue, so that no other
 * consumer gets them, with confirm and `mandatory`.
 *
 * @returns when `stop` is aborted and nothing is under way.
 */
export async function replayDeadLetters(options: ReplayOptions): Promise<void> {
  const { sender, name, deadLetters, isReady, everyMs, logger, stop } = options;

  const live = async (): Promise<void> => {
    while (!stop.aborted) {
      const more =
        isReady() &&
        (await deadLetters.replay(async (letter) => {
          const sending = sendingOf(name, letter);
          const outcome = sending === undefined ? undefined : await sendCopy(sender, sending);
          if (outcome?.kind === 'confirmed') return 'sent';
          if (outcome !== undefined && outcome.kind !== 'unsendable') {
            throw new BrokerError('ONCEBOX_NOT_REPLAYED', outcome.reason);
          }
          const why = outcome?.reason ?? 'its properties are no JSON object';
          const { messageId, correlationId } = sending?.options ?? {};
          logger.error(
            { consumer: name, messageId, correlationId },
            `a dead letter cannot be sent again, so it is dead as before: ${why}`,
          );
          return 'unsendable';
        }));
      if (!more) await delay(everyMs, undefined, { signal: stop }).catch(() => undefined); // rejects only because of `stop`
    }
  };
  await persist(live, stop, (thrown) => {
    const error = failureOf(thrown);
    const reason = error instanceof BrokerError ? error.message : reasonOf(error);
    logger.warn({ consumer: name }, `dead letters wait for their replay: ${reason}`);
  });
}
