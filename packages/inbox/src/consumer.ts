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
   * Reads the payload, and returns what prepares the work. The signal is aborted when the handler's deadline passes.
   *
   * @throws MessageError ONCEBOX_INVALID_PAYLOAD
   */
  read(received: Received): (signal: AbortSignal) => Promise<Work>;
}

/**
 * Handles one version of one message.
 *
 * `handle` runs on a transaction that also records the message's id, so all that it does **on `tx`** takes effect once, its
 * `outbox.add` included. It may run more than once (a deadlock rolls back and repeats it), so what it does elsewhere may too. Calls to
 * other services belong in `prepare`, which runs before the transaction, as no row lock should be held across a network call; its
 * result is passed to `handle`. Give its signal to those calls: it is aborted at the consumer's deadline, when the message is no longer
 * this attempt's and a late answer would come to nothing.
 */
export function on<Payload, Prepared>(
  contract: Contract<string, Payload>,
  handler: {
    prepare(message: Incoming<Payload>, signal: AbortSignal): Promise<Prepared>;
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
    prepare?(message: Incoming<Payload>, signal: AbortSignal): Promise<unknown>;
    handle(tx: Transaction, message: Incoming<Payload>, prepared: unknown): Promise<void>;
  },
): Handling {
  return {
    contract,
    read(received) {
      const message = { ...received, payload: parsePayload(contract, received.payload) };
      return async (signal) => {
        const prepared = await handler.prepare?.(message, signal);
        return (tx) => handler.handle(tx, message, prepared);
      };
    },
  };
}

export interface ConsumerDefinition {
  /** Also the name of its queue and of its rows in processed_messages: a new name would handle everything again. */
  readonly name: string;
  readonly handlers: readonly Handling[];
  /**
   * Milliseconds before each further attempt at a message that failed; after the last one it is dead. Default 1 s, 5 s, 30 s, 2 min,
   * 10 min. Each value has a queue of its own, which stays where it is when the value is no longer used.
   */
  readonly retryDelaysMs?: readonly number[];
  /**
   * Milliseconds for one attempt at a message, `prepare` and transaction together; then it is rolled back and counts as failed. Default
   * 60,000, at most 25 min: the broker takes back a message that is in hand for 30 min.
   */
  readonly deadlineMs?: number;
}

export interface Consumer {
  readonly name: string;
  /** What its queue must be bound for. */
  readonly routingKeys: readonly string[];
  /** What it handles, in whichever version. */
  readonly types: readonly string[];
  readonly retryDelaysMs: readonly number[];
  readonly deadlineMs: number;
  handlingOf(type: string, version: number): Handling | undefined;
}

// As a queue name it is given suffixes such as `.retry.10m`; as a column it is ASCII and holds 128 characters.
const NAME = /^[a-z][a-z0-9._-]{0,99}$/;
const RETRY_DELAYS_MS: readonly number[] = [1_000, 5_000, 30_000, 120_000, 600_000];
const LONGEST_DELAY_MS = 2 ** 31 - 1;
const DEADLINE_MS = 60_000;
const LONGEST_DEADLINE_MS = 25 * 60_000;

/**
 * @throws InboxError ONCEBOX_INVALID_CONSUMER for a name that is no queue name, for no handlers, for two of one message, and for
 *   delays or a deadline out of bounds.
 */
export function defineConsumer({
  name,
  handlers,
  retryDelaysMs = RETRY_DELAYS_MS,
  deadlineMs = DEADLINE_MS,
}: ConsumerDefinition): Consumer {
  const refuse = (why: string): never => {
    throw new InboxError('ONCEBOX_INVALID_CONSUMER', `Consumer ${JSON.stringify(name)}: ${why}`);
  };
  if (!NAME.test(name)) refuse('its name must have 1 to 100 of a-z, 0-9, ".", "_", "-", and begin with a letter');
  if (handlers.length === 0) refuse('it handles nothing; give it at least one on(Contract, { handle })');
  const isWithin = (value: number, most: number): boolean => Number.isInteger(value) && value >= 1 && value <= most;
  if (!retryDelaysMs.every((delay) => isWithin(delay, LONGEST_DELAY_MS))) {
    refuse(`each of retryDelaysMs must be a whole number of milliseconds from 1 to ${LONGEST_DELAY_MS}`);
  }
  if (!isWithin(deadlineMs, LONGEST_DEADLINE_MS)) {
    refuse(`deadlineMs must be a whole number of milliseconds from 1 to ${LONGEST_DEADLINE_MS}`);
  }
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
    types: [...new Set(handlers.map(({ contract }) => contract.type))],
    retryDelaysMs,
    deadlineMs,
    handlingOf: (type, version) => handlings.get(`${type} v${version}`),
  };
}
