import { inPublishSpan, type OutgoingMessage, toWire } from '@oncebox/message';
import type { ChannelModel } from 'amqplib';
import type { Outcome, Sending } from './confirms.ts';
import { ensureLog, keptAs } from './log.ts';
import { createSender, type SenderOptions } from './sender.ts';
import { type ConnectionState, type SupervisorOptions, superviseConnection } from './supervisor.ts';
import type { LogRetention } from './topology.ts';

/** The Publisher that the relay of @oncebox/outbox asks for, on RabbitMQ. */
export interface Publisher {
  /** Whether it makes sense to take work now: connected, and the broker does not block publishers. */
  readonly ready: boolean;
  /** Publishes one message, persistent and (unless it is optional) mandatory, and settles with what became of it. Never rejects. */
  publish(message: OutgoingMessage): Promise<Outcome>;
  state(): ConnectionState;
  /** Waits for the outcome of what is in flight, at most the confirm time-out (twice, with a log), then closes for good. */
  close(): Promise<void>;
}

export interface PublisherOptions extends SupervisorOptions, SenderOptions {
  /** Keeps what is published in the log as well, for as long as this says. Without it there is no log. */
  readonly log?: LogRetention;
}

/**
 * Connects in the background, so it may be made while the broker is away; it declares the exchanges on every channel.
 *
 * With `log`, a message counts as published when both have confirmed it. The exchange comes first: what it returns is tried again, for days
 * if need be, and a log that came first would take a copy of each attempt.
 *
 * @throws BrokerError ONCEBOX_INVALID_BROKER_URL
 */
export function createPublisher(options: PublisherOptions): Publisher {
  const { log, logger } = options;
  const supervisor = superviseConnection(options);
  const prepare = log && ((connection: ChannelModel) => ensureLog(connection, log, logger));
  const sender = createSender(supervisor, options, prepare);
  const keeping = new Set<Promise<Outcome>>();
  let isMending = false;

  /** Declares a log anew that somebody has deleted. What was returned is tried again after a pause, and finds it. */
  async function mend(): Promise<void> {
    if (prepare === undefined || isMending) return;
    isMending = true;
    try {
      await prepare(await supervisor.connected());
    } finally {
      isMending = false;
    }
  }

  async function keep(sending: Sending): Promise<Outcome> {
    const outcome = await sender.send(keptAs(sending));
    if (outcome.kind === 'confirmed') return outcome;
    if (outcome.kind === 'returned') void mend().catch(() => undefined); // rejects only when this is closed
    return { kind: outcome.kind, reason: `announced, and not kept in the log: ${outcome.reason}` };
  }

  function send(message: OutgoingMessage): Promise<Outcome> {
    const { exchange, routingKey, mandatory } = message;
    const { body, properties } = toWire(message);
    const sending = { exchange, routingKey, body, options: { ...properties, mandatory } };
    const announced = sender.send(sending);
    if (log === undefined) return announced;
    const kept = announced.then((outcome) => (outcome.kind === 'confirmed' ? keep(sending) : outcome));
    keeping.add(kept);
    return kept.finally(() => keeping.delete(kept));
  }

  return {
    get ready() {
      return sender.ready;
    },
    publish: (message) => inPublishSpan(message, send),
    state: () => supervisor.state(),
    async close() {
      // The sender takes nothing more once it closes, and what has been announced is yet to go to the log.
      await Promise.all(keeping);
      await sender.close();
      await supervisor.close();
    },
  };
}
