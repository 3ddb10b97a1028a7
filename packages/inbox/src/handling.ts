import { type Contract, claimIn, failureOf, mayBeClaimed, parsePayload, type Received } from '@oncebox/message';
import type { Transaction } from '@oncebox/mysql';
import { payloadsAt } from './claimed.ts';
import { inContextOf } from './contexts.ts';
import { InboxError } from './errors.ts';

/** A received message whose payload has passed its contract, in the contract's version; `version` is the one that it was sent as. */
export type Incoming<Payload> = Omit<Received, 'payload'> & { readonly payload: Payload };

/** What runs on the transaction that also records the message. */
export type Work = (tx: Transaction) => Promise<void>;

/** Messages of one handling, one behind the other, that share a transaction. */
export interface Run {
  /** @throws MessageError ONCEBOX_INVALID_PAYLOAD; the run is then as it was. */
  add(received: Received): void;
  readonly work: Work;
}

/** What a consumer does with one message, in the contract's version and those before it; `on` and `onBatch` make it. */
export interface Handling {
  readonly contract: Contract;
  /** Whether something runs before the transaction: such messages do not share one. */
  readonly prepares: boolean;
  /** Whether it takes messages that are sent again from the log; those that it does not take are acknowledged without effect. */
  readonly replays: boolean;
  /**
   * The message with the payload that it has a claim check for. Not part of `read`, or one that breaks its contract could not be told from a
   * `prepare` that has failed.
   *
   * @throws PayloadExpiredError; MessageError ONCEBOX_MALFORMED_MESSAGE; InboxError ONCEBOX_PAYLOAD_UNAVAILABLE, ONCEBOX_PAYLOAD_DIFFERS
   */
  readonly redeem?: (received: Received, signal: AbortSignal) => Promise<Received>;
  /**
   * Reads the payload, and returns what prepares the work. The signal is aborted when the handler's deadline passes.
   *
   * @throws MessageError ONCEBOX_INVALID_PAYLOAD
   */
  read(received: Received): (signal: AbortSignal) => Promise<Work>;
  run(): Run;
}

interface Replaying {
  /**
   * `true` for a handler that may be given history (`oncebox replay`), each message still once: one that fills a read model. False, the
   * default, for one whose effect is meant for the moment, such as an e-mail.
   */
  readonly replays?: boolean;
}

const incoming = <Payload>(contract: Contract<string, Payload>, received: Received): Incoming<Payload> => ({
  ...received,
  payload: parsePayload(contract, received.payload, received.version),
});

/** What a handler throws is made an Error here, before any transaction or savepoint asks what it is. */
const soundly =
  (work: Work): Work =>
  async (tx) => {
    try {
      await work(tx);
    } catch (thrown) {
      throw failureOf(thrown);
    }
  };

/**
 * Handles one message, in the contract's version and in every earlier one, which the handler sees as the contract's.
 *
 * `handle` runs on a transaction that also records the message's id, so all that it does **on `tx`** takes effect once, its
 * `outbox.add` included. It may run more than once (a deadlock rolls back and repeats it), so what it does elsewhere may too. Other
 * messages may share the transaction, one after the other: see `batch` of `defineConsumer`. Calls to other services belong in
 * `prepare`, which runs before the transaction, as no row lock should be held across a network call; its result is passed to
 * `handle`. Give its signal to those calls: it is aborted at the consumer's deadline, when the message is no longer this attempt's
 * and a late answer would come to nothing.
 *
 * Of a contract whose payloads may be claimed (`overLimit: 'claim-check'`), `payloadsFrom` is the URL below which its writer serves them. They
 * are fetched before `prepare`, within the same deadline.
 *
 * @throws InboxError ONCEBOX_INVALID_CONSUMER for such a contract without that URL.
 */
export function on<Payload, Prepared>(
  contract: Contract<string, Payload>,
  handler: Replaying & {
    readonly payloadsFrom?: string;
    prepare(message: Incoming<Payload>, signal: AbortSignal): Promise<Prepared>;
    handle(tx: Transaction, message: Incoming<Payload>, prepared: Prepared): Promise<void>;
  },
): Handling;
export function on<Payload>(
  contract: Contract<string, Payload>,
  handler: Replaying & {
    readonly payloadsFrom?: string;
    handle(tx: Transaction, message: Incoming<Payload>): Promise<void>;
  },
): Handling;
export function on<Payload>(
  contract: Contract<string, Payload>,
  handler: Replaying & {
    readonly payloadsFrom?: string;
    prepare?(message: Incoming<Payload>, signal: AbortSignal): Promise<unknown>;
    handle(tx: Transaction, message: Incoming<Payload>, prepared: unknown): Promise<void>;
  },
): Handling {
  const fetchPayload = mayBeClaimed(contract) ? payloadsAt(contract, handler.payloadsFrom) : undefined;
  return {
    contract,
    prepares: handler.prepare !== undefined || fetchPayload !== undefined,
    replays: handler.replays ?? false,
    ...(fetchPayload && {
      async redeem(received: Received, signal: AbortSignal) {
        const claim = claimIn(contract, received);
        return claim === undefined ? received : { ...received, payload: await fetchPayload(claim, signal) };
      },
    }),
    read(received) {
      const message = incoming(contract, received);
      return async (signal) => {
        const prepared = await inContextOf(received, async () => handler.prepare?.(message, signal));
        return soundly((tx) => inContextOf(received, () => handler.handle(tx, message, prepared)));
      };
    },
    run() {
      const works: Work[] = [];
      return {
        add(received) {
          const message = incoming(contract, received);
          works.push((tx) => inContextOf(received, () => handler.handle(tx, message, undefined)));
        },
        work: soundly(async (tx) => {
          for (const work of works) await work(tx);
        }),
      };
    },
  };
}

/**
 * Handles several messages of one contract at once, for handlers that can write many rows with one statement.
 *
 * `handle` gets one message or more, in the order of their arrival, on the transaction that also records their ids. When it throws,
 * everything is rolled back and each message is given to it alone, so that the one at fault is found and the others take effect. For
 * the rest as `on`, but that no one message's span is active: what it emits belongs to the message that it is `causedBy`.
 *
 * @throws InboxError ONCEBOX_INVALID_CONSUMER for a contract whose payloads may be claimed: each of its messages has a transaction of its own.
 */
export function onBatch<Payload>(
  contract: Contract<string, Payload>,
  handler: Replaying & { handle(tx: Transaction, messages: readonly Incoming<Payload>[]): Promise<void> },
): Handling {
  if (mayBeClaimed(contract)) {
    throw new InboxError(
      'ONCEBOX_INVALID_CONSUMER',
      `${contract.type}: its payloads may have to be fetched, each by itself: handle it with on()`,
    );
  }
  return {
    contract,
    prepares: false,
    replays: handler.replays ?? false,
    read(received) {
      const messages = [incoming(contract, received)];
      return async () => soundly((tx) => handler.handle(tx, messages));
    },
    run() {
      const messages: Incoming<Payload>[] = [];
      return {
        add: (received) => void messages.push(incoming(contract, received)),
        work: soundly((tx) => handler.handle(tx, messages)),
      };
    },
  };
}
