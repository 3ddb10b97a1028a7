import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import type { Received, Verdict } from '@oncebox/message';
import type { Broker } from './broker.ts';
import { reasonOf } from './errors.ts';
import type { Logger } from './logger.ts';
import { persist } from './persist.ts';
import { openSession, type Session } from './session.ts';

export interface ConsumerOptions {
  readonly broker: Broker;
  /** Also the name of its queue; processes that use the same name share the work. */
  readonly name: string;
  /** What its queue is bound for on the exchange of events. */
  readonly routingKeys: readonly string[];
  /** Handles one message and says what came of it. Called for up to `prefetch` messages at a time. */
  readonly handle: (message: Received) => Promise<Verdict>;
  /**
   * Whether what the handlers stand on answers, and takes writes if they make any. Asked before consuming, and after an
   * `unavailable` until it is true. It should log what is away; only it knows.
   */
  readonly isAvailable: () => Promise<boolean>;
  readonly logger: Logger;
  /** Most messages in hand. Default 100; from 100 to 300 is useful. */
  readonly prefetch?: number;
  /** Milliseconds before each further attempt; after the last one a message is dead. Default 1 s, 5 s, 30 s, 2 min, 10 min. */
  readonly retryDelaysMs?: readonly number[];
  /** How often the broker delivers a message that is never settled, because its worker crashes, before it is dead. Default 20. */
  readonly deliveryLimit?: number;
}

export interface Consumer {
  /** Whether the broker sends it messages now. */
  readonly consuming: boolean;
  /** Takes no more messages and resolves when those in hand are settled, however long their handlers take. */
  stop(): Promise<void>;
}

const RETRY_DELAYS_MS: readonly number[] = [1_000, 5_000, 30_000, 120_000, 600_000];

/**
 * Consumes a queue of its own: declares it with its retry queues and its dead queue, and acknowledges a message when its handler
 * is done, or when a copy of it is safe in a retry queue or the dead queue. Delivery is at least once and in no order across
 * retries. It waits for a broker that is away, and for what its handlers stand on.
 */
export function startConsumer({
  broker,
  prefetch = 100,
  retryDelaysMs = RETRY_DELAYS_MS,
  deliveryLimit = 20,
  ...rest
}: ConsumerOptions): Consumer {
  const options = { ...rest, prefetch, retryDelaysMs, deliveryLimit };
  const { name, logger } = options;
  const stop = new AbortController();
  const stopped = once(stop.signal, 'abort');
  let session: Session | undefined;

  const live = async (): Promise<void> => {
    if (!(await options.isAvailable())) return; // to be asked again after a pause
    // Without the means to move a message aside, each failure would be a delivery in vain.
    while (!broker.sender.ready && !stop.signal.aborted) await delay(50);
    const connection = await Promise.race([broker.consuming.connected(), stopped.then(() => undefined)]);
    if (connection === undefined) return;
    session = await openSession(connection, broker.sender, options);
    logger.info({ consumer: name }, 'consuming');
    if (stop.signal.aborted) void session.finish();
    const failure = await session.ended;
    session = undefined;
    if (failure !== undefined) throw failure;
  };
  const ended = persist(live, stop.signal, (error) => {
    logger.warn({ consumer: name }, `not consuming: ${error instanceof Error ? error.message : reasonOf(error)}`);
  });

  return {
    get consuming() {
      return session?.consuming ?? false;
    },
    async stop() {
      stop.abort();
      await session?.finish();
      await ended;
    },
  };
}
