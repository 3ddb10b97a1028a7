import { setTimeout as delay } from 'node:timers/promises';
import { type DeadLetter, deadQueue, setAsideQueue } from '@oncebox/message';
import type { ChannelModel, ConsumeMessage } from 'amqplib';
import { FLUSH_MS } from './acks.ts';
import { ifThere, openChannel } from './channel.ts';
import type { Sending } from './confirms.ts';
import { connectOnce, type OneConnection } from './connect-once.ts';
import { copyOf } from './copies.ts';
import { BrokerError } from './errors.ts';
import { deliveryOf } from './fetch-one.ts';
import type { Logger } from './logger.ts';
import { NOTE } from './notes.ts';
import type { SupervisorOptions } from './supervisor.ts';
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

/**
 * Moves what is set aside for a consumer to its dead queue, where its worker tries once more to
 * keep it. Each is gone from the one queue when the other has confirmed it.
 *
 * @returns how many.
 * @throws BrokerError ONCEBOX_INVALID_BROKER_URL; ONCEBOX_BROKER_AWAY; ONCEBOX_NOT_REPLAYED when
 *   the consumer has no such queue, or its dead queue takes nothing.
 */
export async function bringBack({ urls, consumer, logger }: BringBackOptions): Promise<number> {
  return await onConnection({ urls, name: `bring back to ${consumer}`, logger }, async ({ connection, openSender }) => {
    const sender = await openSender(1);
    const { channel, close } = await openChannel(connection);
    const queue = setAsideQueue(consumer);
    const waiting = await depthOf(connection, consumer);
    if (waiting === undefined)
      throw new BrokerError('ONCEBOX_NOT_REPLAYED', `There is no queue ${queue}: its worker declares it`);
    // No more than there are now: what its worker puts back is not tried a second time.
    for (let moved = 0; moved < waiting; moved++) {
      const got = await channel.get(queue);
      if (got === false) return moved;
      const outcome = await sendCopy(sender, copyOf(deadQueue(consumer), unwrapped(deliveryOf(got)), {}));
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
  return await onConnection({ urls, name: 'count what is set aside', logger }, async ({ connection }) => {
    const counts = new Map<string, number>();
    for (const consumer of consumers) counts.set(consumer, (await depthOf(connection, consumer)) ?? 0);
    return counts;
  });
}

async function depthOf(connection: ChannelModel, consumer: string): Promise<number | undefined> {
  const found = await ifThere(connection, (channel) => channel.checkQueue(setAsideQueue(consumer)));
  return found?.messageCount;
}

async function onConnection<T>(options: SupervisorOptions, work: (one: OneConnection) => Promise<T>): Promise<T> {
  const one = await connectOnce(options);
  try {
    return await work(one);
  } finally {
    await one.supervisor.close();
  }
}
