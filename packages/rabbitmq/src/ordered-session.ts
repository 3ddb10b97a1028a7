import { setTimeout as delay } from 'node:timers/promises';
import {
  classOf,
  deadQueue,
  failureOf,
  fromWire,
  inActiveTrace,
  inHandleSpan,
  type Received,
  recordVerdict,
  type Verdict,
} from '@oncebox/message';
import type { ChannelModel, ConsumeMessage } from 'amqplib';
import { FLUSH_MS } from './acks.ts';
import { openChannel } from './channel.ts';
import { watchDepth } from './depth.ts';
import { handledBy, idsOf, whereOf } from './described.ts';
import { moveFailed } from './moving.ts';
import { deliveriesBefore, failedAttempts, originalRoutingKey } from './notes.ts';
import { originalPropertiesText } from './record.ts';
import type { Sender } from './sender.ts';
import type { Session, SessionOptions } from './session.ts';
import { tellSettled } from './settled.ts';
import { SKIPPED } from './settling.ts';
import { type SettledSignal, signal } from './signals.ts';
import { declareOrderedConsumer } from './topology.ts';
import { unwrapped } from './wrap.ts';

/**
 * Messages in hand, the same for every worker and for ever. A quorum queue puts what comes back
 * behind what has come back before and is not taken yet, so a worker that takes fewer than the one
 * before it, and dies, leaves them in another order (tried on 3.10 and 4.3).
 */
const PREFETCH = 50;

export interface OrderedSessionOptions extends Omit<SessionOptions, 'prefetch' | 'deliveryLimit' | 'handleFirst'> {
  /** One of the consumer's. */
  readonly queue: string;
}

/**
 * One channel's life as a consumer of one queue, which has one active consumer at a time. It never
 * cancels its subscription: the broker would send the next messages to another worker while this
 * one still has some in hand, and those of one key would be handled side by side. It closes the
 * channel instead, which gives all that is in hand back at once. Who comes next gets again what is
 * still in a transaction here, and waits for that at the inbox's row.
 *
 * A crash counts against all that is in hand. So the queue has no delivery limit, and the inbox is
 * told how often a message has been delivered: from the third time on it holds it unhandled, and
 * then tries one at a time.
 */
export async function openOrderedSession(
  connection: ChannelModel,
  sender: Sender,
  { inbox, queue, logger }: OrderedSessionOptions,
): Promise<Session> {
  const { name } = inbox;
  const live = await openChannel(connection);
  const { channel, closed, ended, close } = live;
  const inHand = new Set<Promise<void>>();
  let finishing: Promise<void> | undefined;
  let settledAt = 0;

  const take = (delivery: ConsumeMessage | null): void => {
    if (delivery === null) {
      logger.warn({ consumer: name }, 'the broker ended the subscription; declaring its queues again');
      void finish();
      return;
    }
    if (finishing !== undefined) return; // it goes back with the channel
    const message = unwrapped(delivery);
    const work = inHandleSpan(handledBy(name, message), () => settle(message)).catch((error) => {
      logger.error(
        { consumer: name, ...idsOf(message), error: classOf(error) },
        'a message could not be settled; it goes back to its queue',
      );
      void finish();
    });
    inHand.add(work);
    void work.finally(() => inHand.delete(work));
  };

  async function settle(message: ConsumeMessage): Promise<void> {
    let received: Received;
    try {
      const read = fromWire({ ...message, routingKey: originalRoutingKey(message) });
      const { routingKey } = read;
      const original = {
        routingKey,
        body: message.content,
        // Written only for a message that is held, as few are.
        get properties() {
          return originalPropertiesText(message);
        },
      };
      received = inActiveTrace({ ...read, original, deliveredBefore: deliveriesBefore(message) });
    } catch (thrown) {
      const error = failureOf(thrown);
      recordVerdict({ kind: 'dead', error });
      return giveUp(message, 'cannot be read', error);
    }
    const verdict: Verdict = await inbox.process(received);
    recordVerdict(verdict);
    if (closed.aborted) return;
    if (verdict.kind === 'dead') return giveUp(message, 'failed and cannot be held', verdict.error);
    // An outage, for this and all that come behind it: they go back, and come again in their order
    // when it is over.
    if ('error' in verdict) {
      const fields = { consumer: name, ...idsOf(message), error: classOf(verdict.error) };
      logger.warn(
        fields,
        'its queue is given back, and taken again later: what its handlers stand on is away, or full',
      );
      return void finish();
    }
    if (verdict.kind === 'skipped') logger.info({ consumer: name, ...idsOf(message) }, SKIPPED);
    if (verdict.kind === 'held' && verdict.failure !== undefined) {
      const { failure } = verdict;
      const fields = { consumer: name, ...idsOf(message), attempts: 1, error: classOf(failure), at: whereOf(failure) };
      if (verdict.dead) logger.error(fields, 'handling failed for good; the message is a dead letter');
      else logger.warn(fields, 'handling failed; the message and those of its key behind it are held');
      return ack(message, verdict.dead ? 'dead' : 'retried');
    }
    ack(message, verdict.kind);
  }

  /**
   * One without an id or a type has no place in any order; one that the store does not take loses
   * its own.
   */
  async function giveUp(message: ConsumeMessage, why: string, error: Error): Promise<void> {
    const attempts = failedAttempts(message, name) + 1;
    logger.error(
      { consumer: name, ...idsOf(message), error: classOf(error) },
      `a message ${why}; it goes to ${deadQueue(name)}`,
    );
    const failure = { consumer: name, attempts, error };
    const moved = await moveFailed({ inbox, sender, logger }, deadQueue(name), message, failure);
    if (closed.aborted) return;
    if (moved.kind === 'unsent') return void finish();
    if (moved.kind !== 'stuck') return ack(message, 'dead');
    channel.reject(message, false);
    tellSettled(name, message, 'dead');
  }

  function ack(message: ConsumeMessage, result: SettledSignal['result']): void {
    settledAt = performance.now();
    channel.ack(message);
    signal('oncebox:consumer:acked', { consumer: name, messageId: message.properties.messageId });
    tellSettled(name, message, result);
  }

  function finish(): Promise<void> {
    finishing ??= (async () => {
      while (inHand.size > 0) await Promise.all(inHand);
      await Promise.race([delay(Math.max(0, settledAt + FLUSH_MS - performance.now())), ended]);
      await close();
    })();
    return finishing;
  }

  try {
    await declareOrderedConsumer(connection, channel, inbox);
    await inbox.register();
    await channel.prefetch(PREFETCH);
    await channel.consume(queue, take);
    logger.info({ consumer: name, queue }, 'consuming');
    void watchDepth(live, name, queue);
  } catch (error) {
    await close();
    throw error;
  }
  return {
    get consuming() {
      return finishing === undefined;
    },
    finish,
    ended,
  };
}
