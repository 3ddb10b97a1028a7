import {
  type Binding,
  COMMANDS_EXCHANGE,
  deadQueue,
  EVENTS_EXCHANGE,
  LOG,
  orderedExchanges,
  orderedQueues,
  PARTITION_HEADER,
  PARTITIONS,
  queuedDelays,
  retryQueue,
  setAsideQueue,
} from '@oncebox/message';
import type { Channel, ChannelModel } from 'amqplib';
import { onChannelOfItsOwn } from './channel.ts';
import { BrokerError, isRefusedAs } from './errors.ts';
import { declareContractExchange } from './exchange.ts';

/**
 * The exchanges that a consumer binds to: ours, and those that its contracts name. The relay
 * declares none of the latter, as it knows no contract: what is required waits until a queue is
 * bound.
 *
 * @throws BrokerError ONCEBOX_TOPOLOGY_MISMATCH, ONCEBOX_NO_EXCHANGE
 */
async function declareBound(connection: ChannelModel, channel: Channel, bindings: readonly Binding[]): Promise<void> {
  await declareExchanges(channel);
  for (const exchange of new Set(bindings.map((binding) => binding.exchange))) {
    if (exchange !== EVENTS_EXCHANGE && exchange !== COMMANDS_EXCHANGE) {
      await declareContractExchange(connection, exchange);
    }
  }
}

/**
 * Declares the exchanges of events and of commands. Publisher and consumers both do, so that either
 * may start first.
 */
export async function declareExchanges(channel: Channel): Promise<void> {
  for (const exchange of [EVENTS_EXCHANGE, COMMANDS_EXCHANGE]) {
    await explained(`exchange ${exchange}`, channel.assertExchange(exchange, 'topic', { durable: true }));
  }
}

export interface ConsumerTopology {
  /** Name of the consumer and of its queue. */
  readonly name: string;
  readonly bindings: readonly Binding[];
  readonly retryDelaysMs: readonly number[];
  /**
   * How often the broker delivers a message that is never settled (crashes) before it goes to the
   * dead queue.
   */
  readonly deliveryLimit: number;
}

/**
 * Declares a consumer's queues, then binds: a message that is routed from the first moment on must
 * find all it may need.
 *
 * @param connection for channels of their own, where the broker may refuse and the consumer go on.
 * @throws BrokerError ONCEBOX_TOPOLOGY_MISMATCH, ONCEBOX_NO_EXCHANGE
 */
export async function declareConsumer(
  connection: ChannelModel,
  channel: Channel,
  topology: ConsumerTopology,
): Promise<void> {
  const { name, bindings, retryDelaysMs, deliveryLimit } = topology;
  await declareBound(connection, channel, bindings);
  await declareDeadQueue(channel, name);
  for (const delay of queuedDelays(retryDelaysMs)) {
    await declareQueue(channel, retryQueue(name, delay), {
      ...deadLettersTo(name),
      'x-message-ttl': delay,
      'x-delivery-limit': NO_LIMIT,
    });
  }
  await declareQueue(channel, name, { ...deadLettersTo(deadQueue(name)), 'x-delivery-limit': deliveryLimit });
  for (const { exchange, routingKey } of bindings) await channel.bindQueue(name, exchange, routingKey);
}

/**
 * Declares what an ordered consumer has instead of the one queue: several, each for its share of
 * the partitions and with one active consumer at a time. A headers exchange of its name divides the
 * messages by their partition; those without one, which no relay of ours sends, go to the first
 * queue by the alternate exchange, or they would be lost: the relay takes a message for routed that
 * reaches any exchange. There are no retry queues, as a message that went by one would be
 * overtaken.
 *
 * @throws BrokerError ONCEBOX_TOPOLOGY_MISMATCH, ONCEBOX_NO_EXCHANGE
 */
export async function declareOrderedConsumer(
  connection: ChannelModel,
  channel: Channel,
  { name, bindings }: Pick<ConsumerTopology, 'name' | 'bindings'>,
): Promise<void> {
  const queues = orderedQueues(name);
  const { divided, rest } = orderedExchanges(name);
  await declareBound(connection, channel, bindings);
  await declareDeadQueue(channel, name);
  await explained(`exchange ${rest}`, channel.assertExchange(rest, 'fanout', { durable: true }));
  await explained(
    `exchange ${divided}`,
    channel.assertExchange(divided, 'headers', { durable: true, alternateExchange: rest }),
  );
  for (const queue of queues) {
    await declareQueue(channel, queue, {
      ...deadLettersTo(deadQueue(name)),
      'x-delivery-limit': NO_LIMIT,
      'x-single-active-consumer': true,
    });
  }
  await channel.bindQueue(queues[0] ?? name, rest, '');
  for (let partition = 0; partition < PARTITIONS; partition++) {
    const queue = queues[partition % queues.length] ?? name;
    await channel.bindQueue(queue, divided, '', { 'x-match': 'all', [PARTITION_HEADER]: String(partition) });
  }
  for (const { exchange, routingKey } of bindings) await channel.bindExchange(divided, exchange, routingKey);
}

/**
 * A queue without a delivery limit. RabbitMQ 4 has -1 for it and 20 for none given; 3.10 takes -1
 * for less than any count, and drops a message the first time that it comes back.
 */
const NO_LIMIT = 2 ** 31 - 1;

/**
 * Every reader that looks and leaves counts as a delivery, and this queue is there to be looked at.
 *
 * @throws BrokerError ONCEBOX_TOPOLOGY_MISMATCH
 */
export const declareDeadQueue = (channel: Channel, consumer: string): Promise<void> =>
  declareQueue(channel, deadQueue(consumer), { 'x-delivery-limit': NO_LIMIT });

/**
 * The queue for what does not get from the dead queue into the store; without a limit as that one.
 *
 * @returns false when this user may not declare it, as where its rights name the queues of an
 *   earlier release.
 * @throws BrokerError ONCEBOX_TOPOLOGY_MISMATCH
 */
export async function declareSetAsideQueue(connection: ChannelModel, consumer: string): Promise<boolean> {
  try {
    await onChannelOfItsOwn(connection, (channel) =>
      declareQueue(channel, setAsideQueue(consumer), { 'x-delivery-limit': NO_LIMIT }),
    );
    return true;
  } catch (error) {
    if (isRefusedAs(403, error)) return false;
    throw error;
  }
}

/** Highest priority of a request; each priority costs the broker a queue of its own. */
const MAX_PRIORITY = 5;

/**
 * A classic queue, as quorum queues refuse priorities, and nothing in it lives longer than somebody
 * waits for the answer.
 *
 * @throws BrokerError ONCEBOX_TOPOLOGY_MISMATCH
 */
export const declareRequestQueue = (channel: Channel, queue: string): Promise<void> =>
  declareQueue(channel, queue, { 'x-queue-type': 'classic', 'x-max-priority': MAX_PRIORITY });

/**
 * How much history the log keeps; whichever limit is reached first. The broker forgets whole
 * segments, when it begins another.
 */
export interface LogRetention {
  readonly maxAgeHours: number;
  readonly maxBytes: number;
  readonly segmentBytes: number;
}

/**
 * A stream: it keeps what its readers have read. Bound to nothing, or every message of the exchange
 * would count as routed, and one that no consumer is bound for would no longer wait.
 *
 * @throws BrokerError ONCEBOX_TOPOLOGY_MISMATCH
 */
export const declareLog = (channel: Channel, { maxAgeHours, maxBytes, segmentBytes }: LogRetention): Promise<void> =>
  declareQueue(channel, LOG, {
    'x-queue-type': 'stream',
    'x-max-age': `${maxAgeHours}h`,
    'x-max-length-bytes': maxBytes,
    'x-stream-max-segment-size-bytes': segmentBytes,
  });

/** At-least-once takes both arguments; with either alone the broker drops what it fails to move. */
const deadLettersTo = (queue: string): Record<string, string> => ({
  'x-dead-letter-exchange': '',
  'x-dead-letter-routing-key': queue,
  'x-dead-letter-strategy': 'at-least-once',
  'x-overflow': 'reject-publish',
});

const declareQueue = (
  channel: Channel,
  queue: string,
  settings: Record<string, string | number | boolean>,
): Promise<void> =>
  explained(
    `queue ${queue}`,
    channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum', ...settings } }),
  );

/**
 * @throws BrokerError ONCEBOX_TOPOLOGY_MISMATCH for a declaration that the broker refuses with 406.
 */
async function explained(what: string, declaration: Promise<unknown>): Promise<void> {
  try {
    await declaration;
  } catch (error) {
    if (!isRefusedAs(406, error)) throw error;
    throw new BrokerError(
      'ONCEBOX_TOPOLOGY_MISMATCH',
      `The ${what} exists with other properties than are declared here, and a broker never changes those. ` +
        `Either restore the settings, or let it run empty, delete it and let this process declare it anew. ${error.message}`,
      { cause: error },
    );
  }
}
