import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { type Inbox, orderedQueues } from '@oncebox/message';
import type { ChannelModel } from 'amqplib';
import type { Broker } from './broker.ts';
import { drainDeadQueue } from './drain.ts';
import { BrokerError, reasonOf } from './errors.ts';
import { handleHeldMessages } from './held.ts';
import type { Logger } from './logger.ts';
import { openOrderedSession } from './ordered-session.ts';
import { persist } from './persist.ts';
import { holdName } from './presence.ts';
import { replayDeadLetters } from './replay.ts';
import { openSession, type Session } from './session.ts';

export interface ConsumerOptions {
  readonly broker: Broker;
  /**
   * Whose queue to consume: `createInbox(pool, definition)`. Processes that give the same name
   * share the work. `process` is called for up to `prefetch` messages at a time; `probe` before
   * consuming, and after an `unavailable` until it resolves.
   */
  readonly inbox: Inbox;
  readonly logger: Logger;
  /**
   * What the log calls that which `probe` asks for, without credentials. Default `the database`.
   */
  readonly dependency?: string;
  /**
   * Most messages in hand. Default 400: four times the inbox's batch is useful, as two are handled
   * while two wait. An ordered consumer has 50 of each of its queues.
   */
  readonly prefetch?: number;
  /**
   * How often the broker delivers a message that is never settled, because its worker crashes,
   * before it is dead. Default 20. Not for an ordered consumer.
   */
  readonly deliveryLimit?: number;
  /** Milliseconds between two looks for dead letters that are marked for replay. Default 1,000. */
  readonly replayPollMs?: number;
}

export interface Consumer {
  readonly name: string;
  /**
   * Whether the broker sends it messages now. After its start a process first handles redelivered
   * messages, one at a time over all its consumers, and none of them consumes until that is done.
   */
  readonly consuming: boolean;
  /**
   * Takes no more messages and resolves when those in hand are settled, however long their handlers
   * take.
   */
  stop(): Promise<void>;
}

/**
 * Consumes a queue of its own: declares it with its retry queues and its dead queue, and
 * acknowledges a message when its handler is done, or when a copy of it is safe in a retry queue or
 * the dead queue. Delivery is at least once and in no order across retries, unless the consumer is
 * ordered: then it has several queues, and what fails is safe in the inbox. It waits for a broker
 * that is away, and for what its handlers stand on. What comes to the dead queue it moves into the
 * inbox's dead letters, and what is marked there for replay it sends to its own queue.
 */
export function startConsumer({
  broker,
  inbox,
  logger,
  dependency = 'the database',
  prefetch = 400,
  deliveryLimit = 20,
  replayPollMs = 1_000,
}: ConsumerOptions): Consumer {
  const { name, deadLetters, presence } = inbox;
  const stop = new AbortController();
  const stopped = once(stop.signal, 'abort');
  const sessions = new Map<string, Session>(); // by queue
  const queues = inbox.ordered === undefined ? [name] : orderedQueues(name);
  const holding =
    presence &&
    holdName({
      name,
      queues,
      presence,
      logger,
      stop: stop.signal,
      // They begin anew, and are refused then.
      onLost: () => void Promise.all([...sessions.values()].map((session) => session.finish())),
    });
  const participant = broker.serialStart.join();
  const isConsuming = (): boolean => queues.every((queue) => sessions.get(queue)?.consuming === true);

  const isAvailable = async (): Promise<boolean> => {
    try {
      await inbox.probe();
      return true;
    } catch (error) {
      logger.warn({ consumer: name }, `Waiting for ${dependency}: ${reasonOf(error)}`);
      return false;
    }
  };

  /**
   * A connection on which the name is claimed. Under a name that is another service's, its messages
   * would come here.
   */
  const claimed = async (): Promise<ChannelModel> => {
    const connection = await broker.consuming.connected();
    await holding?.claim(connection);
    return connection;
  };

  /** One session on one queue, from its beginning to its end. */
  const live = async (queue: string): Promise<void> => {
    if (!(await isAvailable())) return; // to be asked again after a pause
    // An ordered consumer has many messages in hand as soon as it subscribes, so it waits for the
    // others.
    if (inbox.ordered !== undefined) await Promise.race([broker.serialStart.over(), stopped]);
    // Without the means to move a message aside, each failure would be a delivery in vain.
    while (!broker.sender.ready && !stop.signal.aborted) await delay(50);
    const connection = await Promise.race([claimed(), stopped.then(() => undefined)]);
    if (connection === undefined) return;
    const session =
      inbox.ordered === undefined
        ? await openSession(connection, broker.sender, {
            inbox,
            logger,
            prefetch,
            deliveryLimit,
            isAvailable,
            async handleFirst(handleOne) {
              await participant.takeTurns(handleOne);
              await broker.serialStart.over();
            },
          })
        : await openOrderedSession(connection, broker.sender, { inbox, queue, logger, isAvailable });
    sessions.set(queue, session);
    if (stop.signal.aborted) void session.finish();
    const failure = await session.ended;
    sessions.delete(queue);
    if (failure !== undefined) throw failure;
  };
  const warn = (error: unknown): void => {
    // In the log already, with what mends it and at intervals that grow.
    if (error instanceof BrokerError && error.code === 'ONCEBOX_CONSUMER_NAME_TAKEN') return;
    logger.warn({ consumer: name }, `not consuming: ${error instanceof Error ? error.message : reasonOf(error)}`);
  };
  const parts =
    inbox.ordered === undefined
      ? // The other consumers must not wait for a first session that does not open or that ends early.
        [persist(() => live(name).finally(participant.leave), stop.signal, warn)]
      : queues.map((queue) => persist(() => live(queue), stop.signal, warn));
  if (inbox.ordered !== undefined) {
    const { handleHeld } = inbox.ordered;
    parts.push(handleHeldMessages({ name, handleHeld, participant, logger, isReady: isConsuming, stop: stop.signal }));
  }
  if (deadLetters !== undefined) {
    // While nothing is consumed there is an outage, which whoever waits for its end logs.
    const isReady = () => isConsuming() && broker.sender.ready;
    const { sender } = broker;
    const consuming = { ...broker.consuming, connected: claimed };
    const keepAndReplay = async (ending: AbortSignal): Promise<void> => {
      const shared = { name, deadLetters, logger, sender, stop: ending };
      await Promise.all([
        drainDeadQueue({ ...shared, deliveryLimit, consuming }),
        replayDeadLetters({ ...shared, isReady, everyMs: replayPollMs }),
      ]);
    };
    parts.push(holding === undefined ? keepAndReplay(stop.signal) : holding.whileHeld(keepAndReplay));
  }

  return {
    name,
    get consuming() {
      return isConsuming();
    },
    async stop() {
      stop.abort();
      await Promise.all([...sessions.values()].map((session) => session.finish()));
      await Promise.all(parts);
      await holding?.leave();
    },
  };
}
