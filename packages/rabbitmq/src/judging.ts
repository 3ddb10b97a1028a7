import { setTimeout as delay } from 'node:timers/promises';
import { classOf, failureOf, fromWire, type Inbox, inActiveTrace, type Received, type Verdict } from '@oncebox/message';
import type { ConsumeMessage } from 'amqplib';
import type { Logger } from './logger.ts';
import { originalRoutingKey } from './notes.ts';
import { pauseMs } from './persist.ts';

/**
 * So often in a row may a handler meet an outage that `isAvailable` does not see; then it is a
 * failure of its own.
 */
const OUTAGES_OF_ITS_OWN = 5;

export interface JudgingOptions {
  readonly inbox: Pick<Inbox, 'name' | 'process'>;
  readonly logger: Logger;
  readonly isAvailable: () => Promise<boolean>;
  /** Aborted when the session takes no more. */
  readonly ending: AbortSignal;
  /** Stop and go on being sent messages. */
  readonly pause: () => Promise<void>;
  readonly resume: () => Promise<void>;
}

export interface Judging {
  /** Whether an outage is being waited for. */
  readonly isPaused: boolean;
  /** What comes of a message; an outage is waited for, unless the session ends. */
  judge(message: ConsumeMessage): Promise<Verdict>;
}

/**
 * The verdicts of one session, for which the database that is away is waited for once and not by
 * each message.
 */
export function openJudging({ inbox, logger, isAvailable, ending, pause, resume }: JudgingOptions): Judging {
  const { name } = inbox;
  let outage: Promise<boolean> | undefined;

  const rest = (failures: number): Promise<void> =>
    delay(pauseMs(failures + 2), undefined, { signal: ending }).catch(() => undefined); // rejects when aborted

  /**
   * Waits until what the handlers stand on is back, without a message being sent to us meanwhile.
   * Those in hand stay in hand and are handled again: given back, each would count as delivered
   * once more (on RabbitMQ 3.10), and a long outage would end in the dead queue.
   *
   * @returns whether it was away at all.
   */
  async function outlast(error: Error): Promise<boolean> {
    let failures = 0;
    for (; !(await isAvailable()); failures++) {
      if (failures === 0) {
        logger.warn({ consumer: name, error: classOf(error) }, 'consuming pauses: what its handlers stand on is away');
        await pause();
      }
      await rest(failures);
      if (ending.aborted) return true;
    }
    if (ending.aborted || failures === 0) return failures > 0;
    logger.info({ consumer: name }, 'consuming goes on');
    await resume();
    return failures > 0;
  }

  async function process(received: Received): Promise<Verdict> {
    for (let unseen = 0; ; ) {
      await outage;
      const verdict = await inbox
        .process(received)
        .catch((error): Verdict => ({ kind: 'retry', error: failureOf(error) }));
      if (verdict.kind !== 'unavailable' || ending.aborted) return verdict;
      if (unseen === OUTAGES_OF_ITS_OWN) return { ...verdict, kind: 'retry' };
      if (unseen > 0) await rest(unseen);
      outage ??= outlast(verdict.error).finally(() => {
        outage = undefined;
      });
      const wasAway = await outage;
      // In a retry queue it takes no place in hand, as it may wait for days. For a connection it
      // need not: every other message competes for the same ones.
      if (!wasAway && verdict.uncounted === 'refused') return { ...verdict, kind: 'retry' };
      unseen = wasAway ? 0 : unseen + 1;
    }
  }

  return {
    get isPaused() {
      return outage !== undefined;
    },
    async judge(message) {
      let received: Received;
      try {
        received = inActiveTrace(fromWire({ ...message, routingKey: originalRoutingKey(message) }));
      } catch (error) {
        return { kind: 'dead', error: failureOf(error) };
      }
      return await process(received);
    },
  };
}
