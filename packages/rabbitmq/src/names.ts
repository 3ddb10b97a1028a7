import {
  type Binding,
  deadQueue,
  orderedExchanges,
  orderedQueues,
  ownerExchange,
  setAsideQueue,
} from '@oncebox/message';
import { ifThere, onChannelOfItsOwn } from './channel.ts';
import { connectOnce } from './connect-once.ts';
import type { Logger } from './logger.ts';
import { type Claim, claimName, takeName } from './owner.ts';

/** A consumer, as what it has at the broker is called. */
export interface NamedConsumer {
  readonly name: string;
  readonly ordered: boolean;
  /** Those that its worker has written down; the ones that every consumer has are known without. */
  readonly queues: readonly string[];
}

export interface QueueDepth {
  readonly queue: string;
  readonly messages: number;
  readonly consumers: number;
}

/** What a person changes at the broker for a consumer's name. */
export interface Names {
  /** Whether the name is this owner's, and makes it so if it is nobody's. */
  claim(consumer: string, owner: string): Promise<Claim>;
  /** Takes the name from its owner, whoever that is. */
  take(consumer: string, owner: string): Promise<Claim>;
  /** Those of its queues that exist. */
  depths(consumer: NamedConsumer): Promise<readonly QueueDepth[]>;
  /** What is not bound, or not there, is done. */
  unbind(consumer: NamedConsumer, binding: Binding): Promise<void>;
  bind(consumer: NamedConsumer, binding: Binding): Promise<void>;
  /** Deletes its queues, with what is in them, and its exchanges. */
  remove(consumer: NamedConsumer): Promise<void>;
  close(): Promise<void>;
}

/**
 * @throws BrokerError ONCEBOX_INVALID_BROKER_URL; ONCEBOX_BROKER_AWAY when no broker answers within
 * 10 s.
 */
export async function openNames(options: {
  readonly urls: readonly string[];
  readonly logger: Logger;
}): Promise<Names> {
  const { supervisor, connection } = await connectOnce({ ...options, name: 'consumer names' });

  return {
    claim: (consumer, owner) => claimName(connection, consumer, owner),
    take: (consumer, owner) => takeName(connection, consumer, owner),
    async depths(consumer) {
      const found: QueueDepth[] = [];
      for (const queue of queuesOf(consumer)) {
        const there = await ifThere(connection, (channel) => channel.checkQueue(queue));
        if (there !== undefined) found.push({ queue, messages: there.messageCount, consumers: there.consumerCount });
      }
      return found;
    },
    async unbind({ name, ordered }, { exchange, routingKey }) {
      await ifThere<unknown>(connection, (channel) =>
        ordered
          ? channel.unbindExchange(orderedExchanges(name).divided, exchange, routingKey)
          : channel.unbindQueue(name, exchange, routingKey),
      );
    },
    async bind({ name, ordered }, { exchange, routingKey }) {
      await onChannelOfItsOwn<unknown>(connection, (channel) =>
        ordered
          ? channel.bindExchange(orderedExchanges(name).divided, exchange, routingKey)
          : channel.bindQueue(name, exchange, routingKey),
      );
    },
    async remove(consumer) {
      const { divided, rest } = orderedExchanges(consumer.name);
      // First what messages come by. An exchange of that name is ours only if the consumer is
      // ordered.
      const exchanges = [...(consumer.ordered ? [divided, rest] : []), ownerExchange(consumer.name)];
      for (const exchange of exchanges) await ifThere(connection, (channel) => channel.deleteExchange(exchange));
      for (const queue of queuesOf(consumer)) await ifThere(connection, (channel) => channel.deleteQueue(queue));
    },
    close: () => supervisor.close(),
  };
}

const queuesOf = ({ name, ordered, queues }: NamedConsumer): string[] => [
  ...new Set([...(ordered ? orderedQueues(name) : [name]), ...queues, deadQueue(name), setAsideQueue(name)]),
];
