import { classOf, deadQueue, type Inbox, retryQueue, type Verdict } from '@oncebox/message';
import type { ConsumeMessage } from 'amqplib';
import type { Acks } from './acks.ts';
import { idsOf, whereOf } from './described.ts';
import type { Logger } from './logger.ts';
import { moveFailed } from './moving.ts';
import { type FailedVerdict, nextAttempt } from './next-attempt.ts';
import type { Sender } from './sender.ts';
import { tellSettled } from './settled.ts';
import type { SettledSignal } from './signals.ts';

/** What the log says of a message that was replayed to a handler which takes no history. */
export const SKIPPED = 'history, which its handler does not take: acknowledged without effect';

export interface SettlingOptions {
  readonly inbox: Inbox;
  readonly sender: Sender;
  readonly logger: Logger;
  readonly acks: Acks;
  /** Aborted when the channel that the deliveries came by is closed. */
  readonly closed: AbortSignal;
}

/**
 * @returns what settles a delivery by its verdict; that resolves with false when it could not be,
 * and goes back to its queue with the session.
 */
export function verdictSettler(
  options: SettlingOptions,
): (message: ConsumeMessage, verdict: Verdict) => Promise<boolean> {
  const { inbox, logger, acks, closed } = options;
  const { name } = inbox;

  function ack(message: ConsumeMessage, result: SettledSignal['result']): boolean {
    acks.ack(message);
    tellSettled(name, message, result);
    return true;
  }

  async function move(message: ConsumeMessage, verdict: FailedVerdict): Promise<boolean> {
    const { error } = verdict;
    const { attempts, retryInMs } = nextAttempt(message, verdict, inbox);
    const queue = retryInMs === undefined ? deadQueue(name) : retryQueue(name, retryInMs);
    const fields = { consumer: name, ...idsOf(message), attempts, error: classOf(error), at: whereOf(error) };
    if (retryInMs === undefined) logger.error(fields, `handling failed for good; the message goes to ${queue}`);
    else logger.warn({ ...fields, retryInMs }, 'handling failed; it will be tried again');
    // The copy first: between a lost message and one that is there twice, the inbox can repair only
    // the second.
    const moved = await moveFailed(options, queue, message, { consumer: name, attempts, error });
    if (closed.aborted) return true;
    if (moved.kind === 'unsent') {
      logger.warn({ consumer: name, ...idsOf(message) }, `not moved to ${queue}, so it goes back: ${moved.reason}`);
      return false;
    }
    if (moved.kind !== 'stuck')
      return ack(message, moved.kind === 'moved' && retryInMs !== undefined ? 'retried' : 'dead');
    acks.reject(message);
    tellSettled(name, message, 'dead');
    return true;
  }

  return async (message, verdict) => {
    if (verdict.kind === 'skipped') logger.info({ consumer: name, ...idsOf(message) }, SKIPPED);
    if (!('error' in verdict)) return ack(message, verdict.kind);
    if (verdict.kind !== 'unavailable') return await move(message, verdict);
    acks.giveBack(message); // finishing during an outage
    return true;
  };
}
