import { setTimeout as delay } from 'node:timers/promises';
import { type ConfirmingChannel, giveUp, type OnCut, type Outcome, type Unsettled } from './confirms.ts';
import type { Destinations } from './destinations.ts';
import type { Logger } from './logger.ts';
import type { Suspects } from './suspects.ts';
import { createTrial, type Trial, type TrialOptions } from './trial.ts';

type Open = (onCut: OnCut) => Promise<ConfirmingChannel>;

/** How many channels are tried at a time. */
const WIDTH = 8;
/**
 * A broker that counts the channels of a user has noticed by then that one is closed. Opened
 * sooner, the next one is one too many.
 */
export const FREED_MS = 100;

export interface TrialsOptions {
  /** Opens one more channel on the connection that is there. */
  readonly openSpare: Open;
  /** Opens a channel on one more connection. */
  readonly openIsolated: Open;
  readonly isConnected: () => boolean;
  /** Whether the broker allows no channel beside the first one. */
  readonly isAlone: () => boolean;
  /** Takes the messages for which the broker may have closed the connection. */
  readonly accuse: (messages: readonly Unsettled[], failure: Error | undefined) => void;
  readonly destinations: Destinations;
  readonly suspects: Suspects;
  readonly logger: Logger;
}

/** Trials for messages that close a channel, and for messages that close a whole connection. */
export function createTrials(options: TrialsOptions): { readonly spare: Trial; readonly isolated: Trial } {
  const { openSpare, openIsolated, isConnected, isAlone, accuse } = options;
  const shared = findingsOf(options);

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
      // While the other connection is there, this is no outage. As `unknown` the messages would
      // stop all others again.
      const outcome: Outcome = { kind: isConnected() ? 'nacked' : 'unknown', reason };
      for (const { settle } of messages) settle(outcome);
    },
  });
  return { spare, isolated };
}

/** What both trials use and remember of the messages that they have tried. */
function findingsOf({
  destinations,
  suspects,
  logger,
}: TrialsOptions): Pick<TrialOptions, 'decided' | 'onPassed' | 'onCulprit'> {
  return {
    decided({ sending }, time) {
      const reason = destinations.refusedSince(sending, time);
      return reason === undefined ? undefined : { kind: 'returned', reason };
    },
    onPassed({ sending }) {
      destinations.prove(sending);
      suspects.clear(sending);
    },
    onCulprit({ sending }, { code, message: reason }, closed) {
      const { exchange } = sending;
      // The message is larger than the broker allows, or has a property that no broker takes. A
      // second attempt has the same end.
      if (code === 406) return { kind: 'unsendable', reason };
      if (closed === 'connection') {
        suspects.convict(sending);
        logger.warn({ exchange }, `a message makes the broker close its connection, and is tried again: ${reason}`);
      } else if (code === 403 || code === 404) {
        const isNews = destinations.refuse(sending, code, reason);
        if (isNews) logger.warn({ exchange }, `the broker refuses messages, which are tried again: ${reason}`);
      }
      return { kind: 'returned', reason };
    },
  };
}
