import { inPublishSpan, type OutgoingMessage, toWire } from '@oncebox/message';
import type { Outcome } from './confirms.ts';
import { createSender, type SenderOptions } from './sender.ts';
import { type ConnectionState, type SupervisorOptions, superviseConnection } from './supervisor.ts';

/** The Publisher that the relay of @oncebox/outbox asks for, on RabbitMQ. */
export interface Publisher {
  /** Whether it makes sense to take work now: connected, and the broker does not block publishers. */
  readonly ready: boolean;
  /** Publishes one message, persistent and (unless it is optional) mandatory, and settles with what became of it. Never rejects. */
  publish(message: OutgoingMessage): Promise<Outcome>;
  state(): ConnectionState;
  /** Waits for the outcome of what is in flight, at most the confirm time-out, then closes for good. */
  close(): Promise<void>;
}

/**
 * Connects in the background, so it may be made while the broker is away; it declares the exchange of events on every channel.
 *
 * @throws BrokerError ONCEBOX_INVALID_BROKER_URL
 */
export function createPublisher(options: SupervisorOptions & SenderOptions): Publisher {
  const supervisor = superviseConnection(options);
  const sender = createSender(supervisor, options);
  const send = (message: OutgoingMessage): Promise<Outcome> => {
    const { exchange, routingKey, mandatory } = message;
    const { body, properties } = toWire(message);
    return sender.send({ exchange, routingKey, body, options: { ...properties, mandatory } });
  };
  return {
    get ready() {
      return sender.ready;
    },
    publish: (message) => inPublishSpan(message, send),
    state: () => supervisor.state(),
    async close() {
      await sender.close();
      await supervisor.close();
    },
  };
}
