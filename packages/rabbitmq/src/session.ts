import { setTimeout as delay } from 'node:timers/promises';
import { classOf, type Inbox, inHandleSpan, recordVerdict } from '@oncebox/message';
import type { ChannelModel, ConsumeMessage } from 'amqplib';
import { FLUSH_MS, openAcks } from './acks.ts';
import { openChannel } from './channel.ts';
import { watchDepth } from './depth.ts';
import { handledBy, idsOf } from './described.ts';
import { fetchOne } from './fetch-one.ts';
import { openJudging } from './judging.ts';
import type { Logger } from './logger.ts';
import { isFirstDelivery } from './notes.ts';
import type { Sender } from './sender.ts';
import { verdictSettler } from './settling.ts';
import { subscribe } from './subscription.ts';
import { declareConsumer } from './topology.ts';
import { unwrapped } from './wrap.ts';

export interface SessionOptions {
  readonly inbox: Inbox;
  readonly prefetch: number;
  readonly deliveryLimit: number;
  readonly logger: Logger;
  /** Says in the log what is away. */
  readonly isAvailable: () => Promise<boolean>;
  /**
   * The session subscribes when this resolves. `handleOne` handles one message if the queue has
   * one, and resolves with whether the message was delivered before. It resolves with false when
   * the session has ended.
   */
  readonly handleFirst: (handleOne: () => Promise<boolean>) => Promise<void>;
}

/**
 * One channel's life as a consumer. All that it holds ends with the channel: a delivery tag means
 * nothing on the next one.
 */
export interface Session {
  /** Whether the broker sends it messages now. */
  readonly consuming: boolean;
  /**
   * Takes no more messages, settles those in hand, closes the channel. What could not be settled
   * goes back to the queue.
   */
  finish(): Promise<void>;
  /** Resolves when the channel is closed, with the error if one closed it. */
  readonly ended: Promise<Error | undefined>;
}

export async function openSession(connection: ChannelModel, sender: Sender, options: SessionOptions): Promise<Session> {
  const { inbox, prefetch, deliveryLimit, logger } = options;
  const { name } = inbox;
  const live = await openChannel(connection);
  const { channel, closed, ended, close } = live;
  const acks = openAcks(name, live);
  const settleVerdict = verdictSettler({ ...options, sender, acks, closed });
  const finished = new AbortController();
  const ending = AbortSignal.any([finished.signal, closed]);
  const inHand = new Set<Promise<unknown>>();
  // The width is 0 while `handleFirst` runs. Then it is 1 until a message comes that was not
  // delivered before: the message that made the last process crash comes first, and a crash counts
  // against every message that was sent ahead with it.
  let width = 0;
  let settledAt = 0;
  let finishing: Promise<void> | undefined;

  try {
    await declareConsumer(connection, channel, { ...inbox, deliveryLimit });
    // Not before: who is registered is expected to have handled all that was published since.
    await inbox.register();
  } catch (error) {
    await close();
    throw error;
  }

  const subscription = subscribe(channel, name, (message) => {
    if (message === null) {
      logger.warn({ consumer: name }, 'the broker ended the subscription; declaring its queue again');
      void finish();
      return;
    }
    if (width < prefetch && isFirstDelivery(message) && !judging.isPaused && !ending.aborted) {
      width = prefetch;
      void subscription.widen(width);
    }
    void handle(unwrapped(message));
  });

  const judging = openJudging({
    inbox,
    logger,
    isAvailable: options.isAvailable,
    ending,
    pause: () => subscription.widen(0),
    resume: () => subscription.widen(width),
  });

  function handle(message: ConsumeMessage): Promise<void> {
    acks.expect(message);
    const work = inHandleSpan(handledBy(name, message), () => settle(message)).catch((error) => {
      logger.error(
        { consumer: name, ...idsOf(message), error: classOf(error) },
        'a message could not be settled; it goes back to the queue',
      );
      void finish();
    });
    return untilSettled(work);
  }

  /** Makes `finish` wait for `work`. */
  function untilSettled<T>(work: Promise<T>): Promise<T> {
    inHand.add(work);
    void work.finally(() => inHand.delete(work));
    return work;
  }

  /**
   * Fetches a message instead of subscribing, so that the broker sends nothing else ahead.
   *
   * @returns whether the message was delivered before.
   */
  async function handleOne(): Promise<boolean> {
    if (ending.aborted) return false;
    const fetched = fetchOne(name, live).then(async (message) => {
      if (message === undefined) return false;
      await handle(unwrapped(message));
      return !isFirstDelivery(message);
    });
    return await untilSettled(fetched);
  }

  async function settle(message: ConsumeMessage): Promise<void> {
    const verdict = await judging.judge(message);
    recordVerdict(verdict);
    // With its channel gone, the broker has taken the message back and sends it again; the inbox
    // knows what is done.
    if (closed.aborted) return;
    settledAt = performance.now();
    if (!(await settleVerdict(message, verdict))) void finish();
    settledAt = performance.now();
  }

  function finish(): Promise<void> {
    finishing ??= (async () => {
      finished.abort();
      await subscription.widen(0);
      while (inHand.size > 0) await Promise.all(inHand);
      await Promise.race([delay(Math.max(0, settledAt + FLUSH_MS - performance.now())), ended]);
      await close();
    })();
    return finishing;
  }

  async function begin(): Promise<void> {
    await options.handleFirst(handleOne);
    if (ending.aborted) return;
    width = 1;
    await subscription.widen(width);
    logger.info({ consumer: name, queue: name }, 'consuming');
  }

  void begin();
  void watchDepth(live, name, name);
  return {
    get consuming() {
      return subscription.width > 0;
    },
    finish,
    ended,
  };
}
