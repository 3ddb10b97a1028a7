import { setTimeout as delay } from 'node:timers/promises';
import {
  classOf,
  deadQueue,
  failureOf,
  fieldOf,
  fromWire,
  type HandledMessage,
  type Inbox,
  inActiveTrace,
  inHandleSpan,
  type Received,
  recordVerdict,
  retryQueue,
  type Verdict,
} from '@oncebox/message';
import type { ChannelModel, ConsumeMessage } from 'amqplib';
import { openAcks } from './acks.ts';
import { openChannel } from './channel.ts';
import { copyTo, failedAttempts, originalRoutingKey } from './copies.ts';
import { watchDepth } from './depth.ts';
import { fetchOne } from './fetch-one.ts';
import type { Logger } from './logger.ts';
import { nextAttempt } from './next-attempt.ts';
import { pauseMs } from './persist.ts';
import type { Sender } from './sender.ts';
import { tellSettled } from './settled.ts';
import type { SettledSignal } from './signals.ts';
import { subscribe } from './subscription.ts';
import { declareConsumer } from './topology.ts';

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

/** One channel's life as a consumer. All that it holds ends with the channel: a delivery tag means nothing on the next one. */
export interface Session {
  /** Whether the broker sends it messages now. */
  readonly consuming: boolean;
  /** Takes no more messages, settles those in hand, closes the channel. What could not be settled goes back to the queue. */
  finish(): Promise<void>;
  /** Resolves when the channel is closed, with the error if one closed it. */
  readonly ended: Promise<Error | undefined>;
}

/** So often in a row may a handler meet an outage that `isAvailable` does not see; then it is a failure of its own, or not counted. */
const OUTAGES_OF_ITS_OWN = 5;

/**
 * How long a channel stays open after the last message was settled. A quorum queue takes acknowledgements in batches (of 32, when
 * many come at once), and the broker forgets those it still holds when the channel closes: of 100 given in one go up to 67 were lost
 * on RabbitMQ 3.10 and 4.3, none after 20 ms. AMQP confirms no acknowledgement, so there is nothing to wait for but time.
 */
export const FLUSH_MS = 300;

/** What the log says of a message that was replayed to a handler which takes no history. */
export const SKIPPED = 'history, which its handler does not take: acknowledged without effect';

export async function openSession(connection: ChannelModel, sender: Sender, options: SessionOptions): Promise<Session> {
  const { inbox, prefetch, deliveryLimit, logger } = options;
  const { name, retryDelaysMs } = inbox;
  const live = await openChannel(connection);
  const { channel, closed, ended, close } = live;
  const acks = openAcks(name, live);
  const finished = new AbortController();
  const ending = AbortSignal.any([finished.signal, closed]);
  const inHand = new Set<Promise<unknown>>();
  // The width is 0 while `handleFirst` runs. Then it is 1 until a message comes that was not
  // delivered before: the message that made the last process crash comes first, and a crash counts
  // against every message that was sent ahead with it.
  let width = 0;
  let settledAt = 0;
  let outage: Promise<boolean> | undefined;
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
    if (width < prefetch && isFirstDelivery(message) && outage === undefined && !ending.aborted) {
      width = prefetch;
      void subscription.widen(width);
    }
    void handle(message);
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
      await handle(message);
      return !isFirstDelivery(message);
    });
    return await untilSettled(fetched);
  }

  async function settle(message: ConsumeMessage): Promise<void> {
    const verdict = await judge(message);
    recordVerdict(verdict);
    // With its channel gone, the broker has taken the message back and sends it again; the inbox knows what is done.
    if (closed.aborted) return;
    settledAt = performance.now();
    if (verdict.kind === 'skipped') logger.info({ consumer: name, ...idsOf(message) }, SKIPPED);
    if (!('error' in verdict)) return ack(message, verdict.kind);
    if (verdict.kind === 'unavailable') return acks.giveBack(message); // finishing during an outage
    const { error } = verdict;
    const { attempts, retryInMs } = nextAttempt(message, verdict, retryDelaysMs);
    const queue = retryInMs === undefined ? deadQueue(name) : retryQueue(name, retryInMs);
    const fields = { consumer: name, ...idsOf(message), attempts, error: classOf(error), at: whereOf(error) };
    if (retryInMs === undefined) logger.error(fields, `handling failed for good; the message goes to ${queue}`);
    else logger.warn({ ...fields, retryInMs }, 'handling failed; it will be tried again');
    // The copy first: between a lost message and one that is there twice, the inbox can repair only the second.
    const outcome = await sender.send(copyTo(queue, message, { consumer: name, attempts, error }));
    if (closed.aborted) return;
    settledAt = performance.now();
    if (outcome.kind === 'confirmed') return ack(message, retryInMs === undefined ? 'dead' : 'retried');
    // Its headers leave no room for ours. The broker can move it by itself, to the dead queue and without our record.
    if (outcome.kind === 'unsendable') {
      acks.reject(message);
      return tellSettled(name, message, 'dead');
    }
    logger.warn({ consumer: name, ...idsOf(message) }, `not moved to ${queue}, so it goes back: ${outcome.reason}`);
    void finish();
  }

  function ack(message: ConsumeMessage, result: SettledSignal['result']): void {
    acks.ack(message);
    tellSettled(name, message, result);
  }

  async function judge(message: ConsumeMessage): Promise<Verdict> {
    let received: Received;
    try {
      received = inActiveTrace(fromWire({ ...message, routingKey: originalRoutingKey(message) }));
    } catch (error) {
      return { kind: 'dead', error: failureOf(error) };
    }
    for (let unseen = 0; ; ) {
      await outage;
      const verdict = await inbox
        .process(received)
        .catch((error): Verdict => ({ kind: 'retry', error: failureOf(error) }));
      if (verdict.kind !== 'unavailable' || ending.aborted) return verdict;
      // Without a retry queue, what is not counted stays in hand.
      const staysInHand = verdict.counted === false && retryDelaysMs.length === 0;
      if (unseen >= OUTAGES_OF_ITS_OWN && !staysInHand) return { ...verdict, kind: 'retry' };
      if (unseen > 0) await pause(unseen);
      outage ??= outlast(verdict.error).finally(() => {
        outage = undefined;
      });
      unseen = (await outage) ? 0 : unseen + 1;
    }
  }

  /**
   * Waits until what the handlers stand on is back, without a message being sent to us meanwhile. Those in hand stay in hand and
   * are handled again: given back, each would count as delivered once more (on RabbitMQ 3.10), and a long outage would end in
   * the dead queue.
   *
   * @returns whether it was away at all.
   */
  async function outlast(error: Error): Promise<boolean> {
    let failures = 0;
    for (; !(await options.isAvailable()); failures++) {
      if (failures === 0) {
        logger.warn({ consumer: name, error: classOf(error) }, 'consuming pauses: what its handlers stand on is away');
        await subscription.widen(0);
      }
      await pause(failures);
      if (ending.aborted) return true;
    }
    if (ending.aborted || failures === 0) return failures > 0;
    logger.info({ consumer: name }, 'consuming goes on');
    await subscription.widen(width);
    return failures > 0;
  }

  const pause = (failures: number): Promise<void> =>
    delay(pauseMs(failures + 2), undefined, { signal: ending }).catch(() => undefined); // rejects when aborted

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

const isFirstDelivery = (message: ConsumeMessage): boolean =>
  !message.fields.redelivered && deliveriesBefore(message) === 0;

/** By the broker's count, which has no entry for a first delivery. */
export function deliveriesBefore({ properties }: ConsumeMessage): number {
  const count: unknown = properties.headers?.['x-delivery-count'];
  return typeof count === 'number' ? count : 0;
}

export const idsOf = ({ properties: { messageId, type, correlationId } }: ConsumeMessage): object => ({
  messageId,
  type,
  correlationId,
});

/** What the span of its handling tells of a message. */
export const handledBy = (consumer: string, message: ConsumeMessage) => (): HandledMessage => {
  const { messageId: id, type, correlationId, headers = {} } = message.properties;
  const routingKey = originalRoutingKey(message);
  const attempt = failedAttempts(message) + 1;
  return {
    consumer,
    id,
    type,
    correlationId,
    exchange: message.fields.exchange,
    routingKey,
    attempt,
    carrier: headers,
  };
};

/** The calls that led to an error, without its message: that may quote personal data, the duplicate key of an INSERT for one. */
export function whereOf(error: unknown): string[] {
  const stack = fieldOf(error, 'stack');
  const lines = typeof stack === 'string' ? stack.split('\n') : [];
  return lines
    .map((line) => line.trim())
    .filter((line) => line.startsWith('at '))
    .slice(0, 5);
}
