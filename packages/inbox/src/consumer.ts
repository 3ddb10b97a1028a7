import { type Binding, COMMANDS_EXCHANGE, EVENTS_EXCHANGE, versionsOf } from '@oncebox/message';
import { InboxError } from './errors.ts';
import type { Handling } from './handling.ts';

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
   * 60,000, at most 25 min: the broker takes back a message that is in hand for 30 min. A batch has as long in all; one that takes longer
   * is handled again, a message at a time.
   */
  readonly deadlineMs?: number;
  /**
   * Most messages that share a transaction; 1 gives each its own. Default 100, and 1 where a handler has a `prepare`. A message that
   * fails is taken back alone. Messages of one key are handled in the order of their arrival. Handlers that take long (tens of
   * milliseconds) are better off with 1: then as many run side by side as the pool has connections.
   */
  readonly batch?: number;
  /**
   * Messages of one key take effect in the order in which they were announced, over all workers and retries. One that fails holds
   * its own key, and no other, until it succeeds or is dead. Its handlers have no `prepare`. Default false. Changing it gives the
   * consumer other queues: unbind the old ones, let the old version run them empty and stop it, then start the new one.
   */
  readonly ordered?: boolean;
  /**
   * Of an ordered consumer, what its key does when a message is dead: `hold` until the dead letter is replayed or discarded, or
   * `continue` with the next. Default `hold`.
   */
  readonly whenDead?: WhenDead;
}

export type WhenDead = 'hold' | 'continue';

export interface Consumer {
  readonly name: string;
  /** What its queue must be bound for, and the type that comes by it. */
  readonly bindings: readonly (Binding & { readonly type: string })[];
  /** The keys of those on the exchange of events. */
  readonly routingKeys: readonly string[];
  /** The same on the exchange of commands: it is the only consumer with these keys. */
  readonly commandKeys: readonly string[];
  /** What it handles, in whichever version. */
  readonly types: readonly string[];
  /** The versions of each that it reads. */
  readonly versions: Readonly<Record<string, readonly number[]>>;
  /** Of these, those of which it takes history. */
  readonly replayedTypes: readonly string[];
  readonly retryDelaysMs: readonly number[];
  readonly deadlineMs: number;
  readonly batch: number;
  /** Set for a consumer that is ordered. */
  readonly ordered?: { readonly whenDead: WhenDead };
  handlingOf(type: string, version: number): Handling | undefined;
}

// As a queue name it is given suffixes such as `.retry.10m`; as a column it is ASCII and holds 128 characters.
const NAME = /^[a-z][a-z0-9._-]{0,99}$/;
const RETRY_DELAYS_MS: readonly number[] = [1_000, 5_000, 30_000, 120_000, 600_000];
const LONGEST_DELAY_MS = 2 ** 31 - 1;
const DEADLINE_MS = 60_000;
const BATCH = 100;
const LARGEST_BATCH = 1_000;
const LONGEST_DEADLINE_MS = 25 * 60_000;

/**
 * @throws InboxError ONCEBOX_INVALID_CONSUMER for a name that is no queue name, for no handlers, for two of one message, for delays,
 *   a deadline or a batch out of bounds, and for a batch of handlers that prepare.
 */
export function defineConsumer({
  name,
  handlers,
  retryDelaysMs = RETRY_DELAYS_MS,
  deadlineMs = DEADLINE_MS,
  batch = handlers.some(({ prepares }) => prepares) ? 1 : BATCH,
  ordered = false,
  whenDead,
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
  if (!isWithin(batch, LARGEST_BATCH)) refuse(`batch must be a whole number from 1 to ${LARGEST_BATCH}`);
  if (batch > 1 && handlers.some(({ prepares }) => prepares)) {
    refuse(
      'a handler with prepare has a transaction of its own: leave batch out, or give the others a consumer of their own',
    );
  }
  if (ordered && handlers.some(({ prepares }) => prepares)) refuse('an ordered consumer has no handler with prepare');
  if (!ordered && whenDead !== undefined)
    refuse('whenDead is for an ordered consumer: nobody waits for a dead message otherwise');
  const handlings = new Map<string, Handling>();
  for (const handling of handlers) {
    for (const { type, version } of versionsOf(handling.contract)) {
      const key = `${type} v${version}`;
      if (handlings.has(key)) refuse(`two handlers for ${key}; one would never run`);
      handlings.set(key, handling);
    }
  }
  const bindings = bindingsOf(handlers);
  const keysOn = (wanted: string): string[] => [
    ...new Set(bindings.flatMap(({ exchange, routingKey }) => (exchange === wanted ? routingKey : []))),
  ];
  const commandKeys = keysOn(COMMANDS_EXCHANGE);
  // A second consumer of a command would do it twice: the owner's name is in the key, and the queue of that name is one.
  const foreign = commandKeys.find((key) => !key.startsWith(`${name}.`));
  if (foreign !== undefined) refuse(`the command ${foreign} belongs to the consumer that its key begins with`);
  return {
    name,
    bindings,
    routingKeys: keysOn(EVENTS_EXCHANGE),
    commandKeys,
    types: typesOf(handlers),
    versions: versionsIn(handlers),
    replayedTypes: typesOf(handlers.filter(({ replays }) => replays)),
    retryDelaysMs,
    deadlineMs,
    batch,
    ...(ordered ? { ordered: { whenDead: whenDead ?? 'hold' } } : {}),
    handlingOf: (type, version) => handlings.get(`${type} v${version}`),
  };
}

const typesOf = (handlers: readonly Handling[]): string[] => [
  ...new Set(handlers.map(({ contract }) => contract.type)),
];

/** One for each type, exchange and key, however many versions have a handler of their own. */
function bindingsOf(handlers: readonly Handling[]): Consumer['bindings'] {
  const bindings = handlers.map(({ contract: { type, exchange, routingKey } }) => ({ type, exchange, routingKey }));
  return [...new Map(bindings.map((binding) => [JSON.stringify(binding), binding])).values()];
}

function versionsIn(handlers: readonly Handling[]): Consumer['versions'] {
  const contracts = handlers.flatMap(({ contract }) => versionsOf(contract));
  const byType = Map.groupBy(contracts, ({ type }) => type);
  return Object.fromEntries(
    Array.from(byType, ([type, found]) => [type, found.map(({ version }) => version).toSorted((a, b) => a - b)]),
  );
}
