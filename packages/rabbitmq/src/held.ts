import { setTimeout as delay } from 'node:timers/promises';
import { classOf, type Inbox } from '@oncebox/message';
import type { Logger } from './logger.ts';
import { persist } from './persist.ts';
import type { Participant } from './serial-start.ts';
import { signal } from './signals.ts';

/** Between two looks for held messages that are due; each is one read of an index. */
const POLL_MS = 200;

export interface HeldOptions extends Pick<NonNullable<Inbox['ordered']>, 'handleHeld'> {
  readonly name: string;
  readonly participant: Participant;
  /** Whether it makes sense to look now. */
  readonly isReady: () => boolean;
  readonly logger: Logger;
  readonly stop: AbortSignal;
}

/**
 * Handles the held messages of an ordered consumer when they are due, one after the other. Every worker of the consumer does, and the
 * lock on a key keeps them apart.
 *
 * In the serial start one message is handled before anything is consumed. A process that died while
 * it handled a held message left the key as it was, so that key has been due for longest and comes
 * first.
 *
 * @returns when `stop` is aborted and nothing is under way.
 */
export async function handleHeldMessages(options: HeldOptions): Promise<void> {
  const { name, participant, handleHeld, isReady, logger, stop } = options;

  /** @returns whether there was one. */
  const handleOne = async (): Promise<boolean> => {
    const outcome = await handleHeld();
    if (outcome === undefined) return false;
    const { messageId, key, correlationId, attempts, dead, failure, waits } = outcome;
    const result = failure === undefined ? 'handled' : dead ? 'dead' : 'retried';
    signal('oncebox:consumer:settled', { consumer: name, result, occurredAt: undefined });
    if (failure === undefined) return true;
    const fields = { consumer: name, messageId, correlationId, attempts, error: classOf(failure) };
    if (waits !== undefined) {
      logger.error({ ...fields, key }, `a failure of a held key could not be written down; the key is ${waits}`);
    } else if (dead) logger.error(fields, 'handling failed for good; the message is a dead letter');
    else logger.warn(fields, 'handling a held message failed; it will be tried again');
    return true;
  };

  const live = async (): Promise<void> => {
    await participant.takeTurns(async () => {
      if (!stop.aborted) await handleOne();
      return false; // a process that died had at most one held message of this consumer in hand
    });
    while (!stop.aborted) {
      const found = isReady() && (await handleOne());
      if (!found) await delay(POLL_MS, undefined, { signal: stop }).catch(() => undefined); // only because of `stop`
    }
  };
  await persist(live, stop, (error) => {
    logger.warn({ consumer: name, error: classOf(error) }, 'held messages wait');
  });
}
