import { setTimeout as delay } from 'node:timers/promises';
import { classOf, type Inbox } from '@oncebox/message';
import type { Logger } from './logger.ts';
import { persist } from './persist.ts';
import { signal } from './signals.ts';

/** Between two looks for held messages that are due; each is one read of an index. */
const POLL_MS = 200;

export interface HeldOptions extends Pick<NonNullable<Inbox['ordered']>, 'handleHeld'> {
  readonly name: string;
  /** Whether it makes sense to look now. */
  readonly isReady: () => boolean;
  readonly logger: Logger;
  readonly stop: AbortSignal;
}

/**
 * Handles the held messages of an ordered consumer when they are due, one after the other. Every worker of the consumer does, and the
 * lock on a key keeps them apart.
 *
 * @returns when `stop` is aborted and nothing is under way.
 */
export async function handleHeldMessages({ name, handleHeld, isReady, logger, stop }: HeldOptions): Promise<void> {
  const live = async (): Promise<void> => {
    while (!stop.aborted) {
      const outcome = isReady() ? await handleHeld() : undefined;
      if (outcome !== undefined) {
        const result = outcome.failure === undefined ? 'handled' : outcome.dead ? 'dead' : 'retried';
        signal('oncebox:consumer:settled', { consumer: name, result, occurredAt: undefined });
      }
      if (outcome?.failure !== undefined) {
        const { messageId, key, correlationId, attempts, dead, failure, waits } = outcome;
        const fields = { consumer: name, messageId, correlationId, attempts, error: classOf(failure) };
        if (waits !== undefined) {
          logger.error({ ...fields, key }, `a failure of a held key could not be written down; the key is ${waits}`);
        } else if (dead) logger.error(fields, 'handling failed for good; the message is a dead letter');
        else logger.warn(fields, 'handling a held message failed; it will be tried again');
      }
      if (outcome === undefined) await delay(POLL_MS, undefined, { signal: stop }).catch(() => undefined); // only because of `stop`
    }
  };
  await persist(live, stop, (error) => {
    logger.warn({ consumer: name, error: classOf(error) }, 'held messages wait');
  });
}
