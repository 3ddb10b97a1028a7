import { setTimeout as delay } from 'node:timers/promises';
import { type DeadLetter, deadQueue, fieldOf, setAsideQueue } from '@oncebox/message';
import type { ChannelModel, ConsumeMessage } from 'amqplib';
import { openChannel } from './channel.ts';
import { openConfirmingChannel, type Sending } from './confirms.ts';
import { copyOf } from './copies.ts';
import { BrokerError } from './errors.ts';
import type { Logger } from './logger.ts';
import { NOTE } from './notes.ts';
import { FLUSH_MS } from './session.ts';
import { type Supervisor, superviseConnection } from './supervisor.ts';
import { sendCopy, unwrapped } from './wrap.ts';

/**
 * The copy of a dead letter that its consumer's store does not take. Its notes are the letter's, so
 * that nothing of that is lost on the way back.
 */
export function setAsideCopy(message: ConsumeMessage, letter: DeadLetter, consumer: string): Sending {
  const { reason, errorClass, attempts, firstFailedAt, lastFailedAt, routingKey, copyHash, stubHash } = letter;
  return copyOf(setAsideQueue(consumer), message, {
    [NOTE.routingKey]: routingKey,
    [NOTE.consumer]: consumer,
    [NOTE.attempts]: attempts,
    [NOTE.reason]: reason.slice(0, 500).toWellFormed(),
    ...(errorClass === undefined ? {} : { [NOTE.errorClass]: errorClass.slice(0, 255).toWellFormed() }),
    ...timed(NOTE.firstFailure, firstFailedAt),
    ...timed(NOTE.lastFailure, lastFailedAt),
    [NOTE.setAside]: (stubHash ?? copyHash).toString('hex'),
  });
}

const timed = (note: string, time: Date | undefined): Record<string, string> =>
  time === undefined || Number.isNaN(time.getTime()) ? {} : { [note]: time.toISOString() };

export interface BringBackOptions {
  readonly urls: readonly string[];
  readonly consumer: string;
  readonly logger: Logger;
}

const CONNECT_MS = 10_000;
const CONFIRM_MS = 10_000;

/**
 * Moves what is set aside for a consumer to its dead queue, where its worker tries once more to
 * keep it. Each is gone from the one queue when the other has confirmed it.
 *
 * @returns how many.
 * @throws BrokerError ONCEBOX_INVALID_BROKER_URL; ONCEBOX_BROKER_AWAY; ONCEBOX_NOT_REPLAYED when
 *   the consumer has no such queue, or its dead
 *   queue takes nothing.
 */
export async function bringBack({ urls, consumer, logger }: BringBackOptions): Promise<number> {
  return await onConnection(urls, `bring back to ${consumer}`, logger, async (connection, supervisor) => {
    const onTimeout = () => supervisor.drop(`no confirm within ${CONFIRM_MS} ms`);
    const sender = await openConfirmingChannel(connection, { window: 1, confirmTimeoutMs: CONFIRM_MS, onTimeout });
    const { channel, close } = await openChannel(connection);
    const queue = setAsideQueue(consumer);
    const waiting = await depthOf(connection, consumer);
    if (waiting === undefined)
      throw new BrokerError('ONCEBOX_NOT_REPLAYED', `There is no queue ${queue}: its worker declares it`);
    // No more than there are now: what its worker puts back is not tried a second time.
    for (let moved = 0; moved < waiting; moved++) {
      const got = await channel.get(queue);
      if (got === false) return moved;
      const message = { ...got, fields: { ...got.fields, consumerTag: '' } };
      const outcome = await sendCopy(sender, copyOf(deadQueue(consumer), unwrapped(message), {}));
      if (outcome.kind !== 'confirmed') throw new BrokerError('ONCEBOX_NOT_REPLAYED', outcome.reason);
      channel.ack(got);
    }
    await delay(FLUSH_MS);
    await close();
    return waiting;
  });
}

/**
 * How many messages are set aside, by consumer; one without such a queue has none. @throws
 * BrokerError as bringBack
 */
export async function countSetAside({
  urls,
  consumers,
  logger,
}: Omit<BringBackOptions, 'consumer'> & { readonly consumers: readonly string[] }): Promise<
  ReadonlyMap<string, number>
> {
  return await onConnection(urls, 'count what is set aside', logger, async (connection) => {
    const counts = new Map<string, number>();
    for (const consumer of consumers) counts.set(consumer, (await depthOf(connection, consumer)) ?? 0);
    return counts;
  });
}

/** On a channel of its own, which the broker closes for a queue that is not there. */
async function depthOf(connection: ChannelModel, consumer: string): Promise<number | undefined> {
  const { channel, close } = await openChannel(connection);
  try {
    return (await channel.checkQueue(setAsideQueue(consumer))).messageCount;
  } catch (error) {
    if (fieldOf(error, 'code') !== 404) throw error;
    return undefined;
  } finally {
    await close();
  }
}

async function onConnection<T>(
  urls: readonly string[],
  name: string,
  logger: Logger,
  work: (connection: ChannelModel, supervisor: Supervisor) => Promise<T>,
): Promise<T> {
  const supervisor = superviseConnection({ urls, name, logger });
  try {
    const connection = await Promise.race([supervisor.connected(), delay(CONNECT_MS, undefined, { ref: false })]);
    if (connection === undefined)
      throw new BrokerError('ONCEBOX_BROKER_AWAY', `No broker has answered within ${CONNECT_MS} ms`);
    return await work(connection, supervisor);
  } finally {
    await supervisor.close();
  }
}
