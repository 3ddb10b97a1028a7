import { setTimeout as delay } from 'node:timers/promises';
import {
  classOf,
  type DeadLetter,
  type DeadLetters,
  deadQueue,
  fieldOf,
  setAsideQueue,
  stubOf,
} from '@oncebox/message';
import type { ConsumeMessage } from 'amqplib';
import { openChannel } from './channel.ts';
import { deadLetterOf } from './dead-letter.ts';
import { watchDepth } from './depth.ts';
import { idsOf } from './described.ts';
import { BrokerError } from './errors.ts';
import type { Logger } from './logger.ts';
import { pauseMs, persist } from './persist.ts';
import type { Sender } from './sender.ts';
import { setAsideCopy } from './set-aside.ts';
import { subscribe } from './subscription.ts';
import type { Supervisor } from './supervisor.ts';
import { declareDeadQueue, declareSetAsideQueue } from './topology.ts';
import { sendCopy, unwrapped } from './wrap.ts';

/** Few: while they cannot be kept they wait in hand, and nothing more is taken. */
const PREFETCH = 5;

export interface DrainOptions {
  readonly consuming: Supervisor;
  /** By which is set aside what cannot be kept. */
  readonly sender: Sender;
  /** Of the consumer whose dead queue it is. */
  readonly name: string;
  readonly deadLetters: DeadLetters;
  /** Of the consumer's own queue. */
  readonly deliveryLimit: number;
  readonly logger: Logger;
  readonly stop: AbortSignal;
}

/**
 * Moves what comes to a consumer's dead queue into its dead letters: kept first, then acknowledged,
 * so that a copy is there at least once. While the store is away, what is in hand waits and the
 * rest stays in the queue, which has no delivery limit. What the store does not take while it is
 * there is set aside in a queue of its own, so that it is in nobody's way.
 *
 * @returns when `stop` is aborted and nothing is in hand.
 */
export async function drainDeadQueue(options: DrainOptions): Promise<void> {
  const { consuming, name, logger, stop } = options;
  const stopped = new Promise<undefined>((resolve) => stop.addEventListener('abort', () => resolve(undefined)));

  const live = async (): Promise<void> => {
    const connection = await Promise.race([consuming.connected(), stopped]);
    if (connection === undefined) return;
    const opened = await openChannel(connection);
    const { channel, closed, ended, close } = opened;
    const inHand = new Set<Promise<void>>();
    const ending = AbortSignal.any([closed, stop]);
    let stuck = 0;
    let canSetAside = false;

    const settle = async (message: ConsumeMessage): Promise<void> => {
      const place = await placeOf({ ...options, canSetAside }, unwrapped(message), ending);
      if (place === 'safe' && !closed.aborted) channel.ack(message);
      // It stays with us until the channel is closed, and its place is for another.
      if (place === 'stuck') void subscription.widen(PREFETCH + ++stuck);
    };

    const cancelled = Promise.withResolvers<undefined>();
    const subscription = subscribe(channel, deadQueue(name), (message) => {
      if (message === null) return cancelled.resolve(undefined);
      const work = settle(message).catch(() => void close()); // its queue is gone: declared anew with the next channel
      inHand.add(work);
      void work.finally(() => inHand.delete(work));
    });
    try {
      await declareDeadQueue(channel, name);
      canSetAside = await declareSetAsideQueue(connection, name);
      if (!canSetAside) {
        const queue = setAsideQueue(name);
        logger.warn(
          { consumer: name },
          `this user may not declare ${queue}: dead letters that cannot be kept stay in hand`,
        );
      }
      await subscription.widen(PREFETCH);
      void watchDepth(opened, name, deadQueue(name), () => inHand.size + stuck);
      if (canSetAside) void watchDepth(opened, name, setAsideQueue(name));
      const failure = await Promise.race([ended, stopped, cancelled.promise]);
      await subscription.widen(0);
      // Not for those of a channel that is gone: the broker sends them again, and whoever keeps one
      // twice keeps one.
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

/**
 * `safe`: in the store or set aside. `stuck`: neither takes it. `in hand`: the channel ends before
 * it is known.
 */
type Place = 'safe' | 'stuck' | 'in hand';

interface SettingAside extends DrainOptions {
  readonly canSetAside: boolean;
}

/**
 * Keeps a dead letter, or sets it aside, and waits for the database and the broker where they are
 * away. @throws when the queue is gone.
 */
async function placeOf(options: SettingAside, message: ConsumeMessage, ending: AbortSignal): Promise<Place> {
  const { name, deadLetters, deliveryLimit, logger } = options;
  const letter = deadLetterOf(message, name, deliveryLimit);
  const fields = { consumer: name, ...idsOf(message) };
  for (let failures = 0; !ending.aborted; failures++) {
    try {
      const why = await refusalOf(deadLetters, letter);
      if (why === undefined) return 'safe';
      if (!options.canSetAside) {
        logger.error(
          fields,
          `a dead letter can be neither kept nor set aside, and stays in ${deadQueue(name)}: ${why}`,
        );
        return 'stuck';
      }
      logger.error(fields, `a dead letter cannot be kept: ${why}; it is set aside in ${setAsideQueue(name)}`);
      return await setAside(options, message, letter, why);
    } catch (error) {
      if (fieldOf(error, 'code') === 'ONCEBOX_NOT_REPLAYED') throw error;
      logger.warn(
        { ...fields, error: classOf(error) },
        `a dead letter could not be kept; it stays in ${deadQueue(name)} and is tried again`,
      );
      // Rejects only because of `ending`.
      await delay(pauseMs(failures + 2), undefined, { signal: ending }).catch(() => undefined);
    }
  }
  return 'in hand';
}

/**
 * Keeps a letter. @returns why the store, which is there, does not take it; undefined when it is
 * kept. @throws when the store is away.
 */
async function refusalOf(deadLetters: DeadLetters, letter: DeadLetter): Promise<string | undefined> {
  try {
    await deadLetters.keep(letter);
    return undefined;
  } catch (error) {
    if (fieldOf(error, 'code') !== 'ONCEBOX_UNSTORABLE') throw error;
    return String(fieldOf(error, 'message'));
  }
}

/**
 * The stub first: what is in the queue should have one. @throws when the store or the broker is
 * away.
 */
async function setAside(
  { sender, name, deadLetters, logger }: DrainOptions,
  message: ConsumeMessage,
  letter: DeadLetter,
  why: string,
): Promise<Place> {
  const queue = setAsideQueue(name);
  const fields = { consumer: name, ...idsOf(message) };
  // What the table refuses may be the type or the id, and then the stub is refused for it too.
  if ((await refusalOf(deadLetters, stubOf(letter, name, why, false))) !== undefined) {
    const refusal = await refusalOf(deadLetters, stubOf(letter, name, why, true));
    if (refusal !== undefined)
      logger.error(fields, `a dead letter is in ${queue} alone, as no stub is taken: ${refusal}`);
  }
  const outcome = await sendCopy(sender, setAsideCopy(message, letter, name));
  if (outcome.kind === 'confirmed') return 'safe';
  if (outcome.kind === 'returned') throw new BrokerError('ONCEBOX_NOT_REPLAYED', outcome.reason);
  if (outcome.kind !== 'unsendable') throw new BrokerError('ONCEBOX_BROKER_LOST', outcome.reason);
  logger.error(
    fields,
    `a dead letter can be neither kept nor set aside, and stays in ${deadQueue(name)}: ${outcome.reason}`,
  );
  return 'stuck';
}
