import { type Contract, parsePayload, type Received } from '@oncebox/message';
import type { Transaction } from '@oncebox/mysql';
import { InboxError } from './errors.ts';

/** A received message whose payload has passed its contract. */
export type Incoming<Payload> = Omit<Received, 'payload'> & { readonly payload: Payload };

/** What runs on the transaction that also records the message. */
export type Work = (tx: Transaction) => Promise<void>;

/** What a consumer does with one version of one message; `on` makes it. */
export interface Handling {
  readonly contract: Contract;
  /**
   * Reads the payload, and returns what prepares the work.
   *
   * @throws MessageError ONCEBOX_INVALID_PAYLOAD
   */
  read(received: Received): () => Promise<Work>;
}

/**
 * Handles one version of one message.
 *
 * `handle` runs on a transaction that also records the message's id, so all that it does **on `tx`** takes effect once, its
 * `outbox.add` included. It may run more than once (a deadlock rolls back and repeats it), so what it does elsewhere may too. Calls to
 * other services belong in `prepare`, which runs before the transaction, as no row lock should be held across a network call; its
 * result is passed to `handle`.
 */
export function on<Payload, Prepared>(
  contract: Contract<string, Payload>,
  handler: {
    prepare(message: Incoming<Payload>): Promise<Prepared>;
    handle(tx: Transaction, message: Incoming<Payload>, prepared: Prepared): Promise<void>;
  },
): Handling;
export function on<Payload>(
  contract: Contract<string, Payload>,
  handler: { handle(tx: Transaction, message: Incoming<Payload>): Promise<void> },
): Handling;
export function on<Payload>(
  contract: Contract<string, Payload>,
  handler: {
    prepare?(message: Incoming<Payload>): Promise<unknown>;
    handle(tx: Transaction, message: Incoming<Payload>, prepared: unknown): Promise<void>;
  },
): Handling {
  return {
    contract,
    read(received) {
      const message = { ...received, payload: parsePayload(contract, received.payload) };
      return async () => {
        const prepared = await handler.prepare?.(message);
        return (tx) => handler.handle(tx, message, prepared);
      };
    },
  };
}

export interface ConsumerDefinition {
  /** Also the name of its queue and of its rows in processed_messages: a new name would handle everything again. */
  readonly name: string;
  readonly handlers: readonly Handling[];
}

export interface Consumer {
  readonly name: string;
  /** What its queue must be bound for. */
  readonly routingKeys: readonly string[];
  handlingOf(type: string, version: number): Handling | undefined;
}

// As a queue name it is given suffixes such as `.retry.10m`; as a column it is ASCII and holds 128 characters.
const NAME = /^[a-z][a-z0-9._-]{0,99}$/;

/**
 * @throws InboxError ONCEBOX_INVALID_CONSUMER for a name that is no queue name, for no handlers, and for two of one message.
 */
export function defineConsumer({ name, handlers }: ConsumerDefinition): Consumer {
  const refuse = (why: string): never => {
    throw new InboxError('ONCEBOX_INVALID_CONSUMER', `Consumer ${JSON.stringify(name)}: ${why}`);
  };
  if (!NAME.test(name)) refuse('its name must have 1 to 100 of a-z, 0-9, ".", "_", "-", and begin with a letter');
  if (handlers.length === 0) refuse('it handles nothing; give it at least one on(Contract, { handle })');
  const handlings = new Map<string, Handling>();
  for (const handling of handlers) {
    const { type, version } = handling.contract;
    const key = `${type} v${version}`;
    if (handlings.has(key)) refuse(`two handlers for ${key}; one would never run`);
    handlings.set(key, handling);
  }
  return {
    name,
    routingKeys: [...new Set(handlers.map(({ contract }) => contract.routingKey))],
    handlingOf: (type, version) => handlings.get(`${type} v${version}`),
  };
}
