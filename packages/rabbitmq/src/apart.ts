import { setTimeout as delay } from 'node:timers/promises';
import { type ConfirmingChannel, giveUp, type OnCut, type Outcome, type Sending, type Unsettled } from './confirms.ts';
import { createDestinations, type Doubt, forgetOldest, nameOf } from './destinations.ts';
import type { Logger } from './logger.ts';
import { createTrial, type Trial, type TrialOptions } from './trial.ts';

type Open = (onCut: OnCut) => Promise<ConfirmingChannel>;

export interface ApartOptions {
  /** Opens one more channel on the connection that is there. */
  readonly openSpare: Open;
  /** Opens a channel on one more connection. */
  readonly openIsolated: Open;
  /** Sends a message with all others, or here. */
  readonly route: (message: Unsettled) => void;
  /** Sends a message with all others. */
  readonly plain: (message: Unsettled) => void;
  readonly isConnected: () => boolean;
  readonly logger: Logger;
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
/** Channels that are tried at a time. */
const WIDTH = 8;
/**
 * When so many attempts wait, a message is answered instead of tried: an attempt that the broker
 * refuses takes it some milliseconds, and the sender of the others may wait for all outcomes.
 */
const MOST_WAITING = 250;
const NOT_TRIED = 'not tried yet: the broker refuses messages for many other destinations';
/**
 * A broker that counts the channels of a user has noticed by then that one is closed. Opened
 * sooner, the next one is one too many.
 */
const FREED_MS = 100;
/** How long nothing is opened beside the one channel, after that has failed. */
const ALONE_MS = 60_000;

export function createApart({ openSpare, openIsolated, route, plain, isConnected, logger }: ApartOptions): Apart {
  const destinations = createDestinations();
  /** Were in flight when the broker closed a connection with an error. */
  const accused = new Set<string>();
  /** Made it do so by themselves. */
  const dangerous = new Set<string>();
  const running = new Set<Promise<void>>();
  let aloneUntil = Number.NEGATIVE_INFINITY;
  const isAlone = (): boolean => performance.now() < aloneUntil;
  const beAlone = (): void => {
    aloneUntil = performance.now() + ALONE_MS;
  };

  const shared: Pick<TrialOptions, 'decided' | 'onPassed' | 'onCulprit'> = {
    decided({ sending }, time) {
      const reason = destinations.refusedSince(sending, time);
      return reason === undefined ? undefined : { kind: 'returned', reason };
    },
    onPassed({ sending }) {
      destinations.prove(sending);
      dangerous.delete(idOf(sending));
    },
    onCulprit({ sending }, { code, message: reason }, closed) {
      const { exchange } = sending;
      // Larger than the broker allows, or with a property that it does not take: never better.
      if (code === 406) return { kind: 'unsendable', reason };
      if (closed === 'connection') {
        dangerous.add(idOf(sending));
        forgetOldest(dangerous);
        logger.warn({ exchange }, `a message makes the broker close its connection, and is tried again: ${reason}`);
      } else if (code === 403 || code === 404) {
        const isNews = destinations.refuse(sending, code, reason);
        if (isNews) logger.warn({ exchange }, `the broker refuses messages, which are tried again: ${reason}`);
      }
      return { kind: 'returned', reason };
    },
  };

  const spare = createTrial({
    ...shared,
    width: () => (isAlone() ? 1 : WIDTH),
    isToBlame: ({ closed }) => closed === 'channel',
    async open(onCut) {
      if (isAlone()) await delay(FREED_MS);
      return await openSpare(onCut);
    },
    onLost(messages, { closed, failure }) {
      if (closed === 'connection') accuse(messages, failure);
      else giveUp({ failure, sent: messages, unsent: [] });
    },
  });

  const isolated = createTrial({
    ...shared,
    width: () => WIDTH,
    isToBlame: ({ closed }) => closed !== undefined,
    open: openIsolated,
    onLost(messages, { failure }) {
      const reason = failure?.message ?? 'the connection to the broker was lost';
      // Not an outage while the other connection is there, and they would stop the others again.
      const outcome: Outcome = { kind: isConnected() ? 'nacked' : 'unknown', reason };
      for (const { settle } of messages) settle(outcome);
    },
  });

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
    const again = messages.filter(({ sending }) => accused.has(idOf(sending)));
    const first = messages.filter(({ sending }) => !accused.has(idOf(sending)));
    for (const { sending } of first) accused.add(idOf(sending));
    forgetOldest(accused);
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
      if (dangerous.size > 0 && dangerous.has(idOf(sending))) {
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
    beAlone,
    async turn() {
      if (!isAlone() || running.size === 0) return;
      await idle();
      await delay(FREED_MS);
    },
    idle,
  };
}

const idOf = (sending: Sending): string => `${sending.options.messageId} ${nameOf(sending)}`;
