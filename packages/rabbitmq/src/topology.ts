import { deadQueue, EVENTS_EXCHANGE, retryQueue } from '@oncebox/message';
import type { Channel } from 'amqplib';
import { BrokerError } from './errors.ts';

/** Declares the exchange of all events. Publisher and consumers both do, so that either may start first. */
export async function declareEvents(channel: Channel): Promise<void> {
  await explained(`exchange ${EVENTS_EXCHANGE}`, channel.assertExchange(EVENTS_EXCHANGE, 'topic', { durable: true }));
}

export interface ConsumerTopology {
  /** Name of the consumer and of its queue. */
  readonly name: string;
  readonly routingKeys: readonly string[];
  readonly retryDelaysMs: readonly number[];
  /** How often the broker delivers a message that is never settled (crashes) before it goes to the dead queue. */
  readonly deliveryLimit: number;
}

/**
 * Declares a consumer's queues, then binds: a message that is routed from the first moment on must find all it may need.
 *
 * @throws BrokerError ONCEBOX_TOPOLOGY_MISMATCH
 */
export async function declareConsumer(channel: Channel, topology: ConsumerTopology): Promise<void> {
  const { name, routingKeys, retryDelaysMs, deliveryLimit } = topology;
  await declareEvents(channel);
  await declareDeadQueue(channel, name);
  for (const delay of retryDelaysMs) {
    await declareQueue(channel, retryQueue(name, delay), {
      ...deadLettersTo(name),
      'x-message-ttl': delay,
      'x-delivery-limit': NO_LIMIT,
    });
  }
  await declareQueue(channel, name, { ...deadLettersTo(deadQueue(name)), 'x-delivery-limit': deliveryLimit });
  for (const key of routingKeys) await channel.bindQueue(name, EVENTS_EXCHANGE, key);
}

/**
 * A queue without a delivery limit. RabbitMQ 4 has -1 for it and 20 for none given; 3.10 takes -1 for less than any count, and
 * drops a message the first time that it comes back.
 */
const NO_LIMIT = 2 ** 31 - 1;

/**
 * Every reader that looks and leaves counts as a delivery, and this queue is there to be looked at.
 *
 * @throws BrokerError ONCEBOX_TOPOLOGY_MISMATCH
 */
export const declareDeadQueue = (channel: Channel, consumer: string): Promise<void> =>
  declareQueue(channel, deadQueue(consumer), { 'x-delivery-limit': NO_LIMIT });

/** At-least-once takes both arguments; with either alone the broker drops what it fails to move. */
const deadLettersTo = (queue: string): Record<string, string> => ({
  'x-dead-letter-exchange': '',
  'x-dead-letter-routing-key': queue,
  'x-dead-letter-strategy': 'at-least-once',
  'x-overflow': 'reject-publish',
});

const declareQueue = (channel: Channel, queue: string, settings: Record<string, string | number>): Promise<void> =>
  explained(
    `queue ${queue}`,
    channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum', ...settings } }),
  );

/** @throws BrokerError ONCEBOX_TOPOLOGY_MISMATCH for a declaration that the broker refuses with 406. */
async function explained(what: string, declaration: Promise<unknown>): Promise<void> {
  try {
    await declaration;
  } catch (error) {
    if (!(error instanceof Error) || Reflect.get(error, 'code') !== 406) throw error;
    throw new BrokerError(
      'ONCEBOX_TOPOLOGY_MISMATCH',
      `The ${what} exists with other properties than are declared here, and a broker never changes those. ` +
        `Either restore the settings, or let it run empty, delete it and let this process declare it anew. ${error.message}`,
      { cause: error },
    );
  }
}
