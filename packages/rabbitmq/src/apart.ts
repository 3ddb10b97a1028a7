import { setTimeout as delay } from 'node:timers/promises';
import { giveUp, type Unsettled } from './confirms.ts';
import { createDestinations, type Doubt } from './destinations.ts';
import { createSuspects } from './suspects.ts';
import type { Trial } from './trial.ts';
import { createTrials, FREED_MS, type TrialsOptions } from './trials.ts';

export interface ApartOptions extends Pick<TrialsOptions, 'openSpare' | 'openIsolated' | 'isConnected' | 'logger'> {
  /** Sends a message with all others, or here. */
  readonly route: (message: Unsettled) => void;
  /** Sends a message with all others. */
  readonly plain: (message: Unsettled) => void;
}

/**
 * Messages that are not sent with all others, because the broker could close the channel of all for
 * them.
 */
export interface Apart {
  /** @returns whether the message is one of these. It gets its outcome here then. */
  takes(message: Unsettled): boolean;
  /** Tries messages of which one has made the broker close their channel. */
  examine(messages: readonly Unsettled[]): void;
  /**
   * The broker has closed the connection of these messages with an error, as it may for the fault
   * of one.
   */
  accuse(messages: readonly Unsettled[], failure: Error | undefined): void;
  /**
   * Resolves when the first channel may be opened again: if no second one can be, the messages are
   * tried before.
   */
  turn(): Promise<void>;
  /** The broker allows no further channel: for a while none is opened beside the first one. */
  beAlone(): void;
  /** Resolves when nothing is tried. */
  idle(): Promise<void>;
}

/**
 * While messages come to a destination that is refused, one in this time is tried. The others get
 * the outcome of the last one.
 */
const PROBE_EVERY_MS = 1_000;
/**
 * When so many attempts wait, a message is answered instead of tried: an attempt that the broker
 * refuses takes it some milliseconds, and the sender of the others may wait for all outcomes.
 */
const MOST_WAITING = 250;
const NOT_TRIED = 'not tried yet: the broker refuses messages for many other destinations';
/** How long nothing is opened beside the one channel, after that has failed. */
const ALONE_MS = 60_000;

export function createApart(options: ApartOptions): Apart {
  const { route, plain } = options;
  const destinations = createDestinations();
  const suspects = createSuspects();
  const running = new Set<Promise<void>>();
  let aloneUntil = Number.NEGATIVE_INFINITY;
  const isAlone = (): boolean => performance.now() < aloneUntil;
  const { spare, isolated } = createTrials({ ...options, isAlone, accuse, destinations, suspects });

  function start(trial: Trial, messages: readonly Unsettled[]): Promise<void> {
    const run = trial.run(messages);
    running.add(run);
    return run.finally(() => running.delete(run));
  }

  async function probe(doubt: Doubt, message: Unsettled): Promise<void> {
    doubt.waiting = [];
    await start(spare, [message]);
    const { waiting } = doubt;
    doubt.waiting = undefined;
    for (const each of waiting) route(each);
  }

  function accuse(messages: readonly Unsettled[], failure: Error | undefined): void {
    const { again, first } = suspects.accuse(messages);
    // A broker in trouble does this, too, so once is an outage.
    giveUp({ failure, sent: first, unsent: [] });
    if (again.length > 0) void start(isolated, again);
  }

  async function idle(): Promise<void> {
    while (running.size > 0) await Promise.all(running);
  }

  return {
    takes(message) {
      const { sending, settle } = message;
      if (suspects.isDangerous(sending)) {
        void start(isolated, [message]);
        return true;
      }
      const doubt = destinations.doubtOf(sending);
      if (doubt === undefined) return false;
      if (doubt.waiting !== undefined) {
        doubt.waiting.push(message);
        return true;
      }
      const wasTried = doubt.reason !== undefined && performance.now() - doubt.triedAt < PROBE_EVERY_MS;
      if (wasTried || spare.waiting > MOST_WAITING) {
        settle({ kind: 'returned', reason: doubt.reason ?? NOT_TRIED });
      } else if (isAlone()) {
        doubt.triedAt = performance.now();
        plain({
          sending,
          settle(outcome) {
            if (outcome.kind === 'confirmed') destinations.prove(sending);
            settle(outcome);
          },
        });
      } else void probe(doubt, message);
      return true;
    },
    examine(messages) {
      for (const { sending } of messages) destinations.suspect(sending);
      void start(spare, messages);
    },
    accuse,
    beAlone() {
      aloneUntil = performance.now() + ALONE_MS;
    },
    async turn() {
      if (!isAlone() || running.size === 0) return;
      await idle();
      await delay(FREED_MS);
    },
    idle,
  };
}
