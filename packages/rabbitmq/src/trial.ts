import type { ConfirmingChannel, Cut, OnCut, Outcome, Unsettled } from './confirms.ts';
import { nameOf } from './destinations.ts';

export interface TrialOptions {
  /** Opens what one attempt is sent on. */
  readonly open: (onCut: OnCut) => Promise<ConfirmingChannel>;
  /** Most attempts at a time. */
  readonly width: () => number;
  /** Whether one of the messages is to blame for the end of an attempt. */
  readonly isToBlame: (cut: Cut) => boolean;
  /** Takes the messages of an attempt that has ended for another reason, or could not be opened. */
  readonly onLost: (messages: readonly Unsettled[], cut: Pick<Cut, 'failure' | 'closed'>) => void;
  /** A message has its outcome from the broker, and the channel has survived it. */
  readonly onPassed: (message: Unsettled) => void;
  /**
   * A message has made the broker close its channel when no other was to blame. @returns its
   * outcome.
   */
  readonly onCulprit: (message: Unsettled, failure: NonNullable<Cut['failure']>, closed: Cut['closed']) => Outcome;
  /** The outcome of a message, if what was found since `time` decides it. */
  readonly decided: (message: Unsettled, time: number) => Outcome | undefined;
}

/**
 * Finds the outcome of messages of which one or several make the broker close the channel of all.
 */
export interface Trial {
  /** Attempts that wait for their turn. */
  readonly waiting: number;
  /** Resolves when every message has its outcome, or was given to `onLost`. */
  run(messages: readonly Unsettled[]): Promise<void>;
}

/**
 * Into so many parts a group is divided. With more parts fewer copies of an innocent message are
 * sent, as it is sent once in each round: 1,000 messages take three rounds, and ten if halved.
 */
const PARTS = 16;

/**
 * Sends all messages on a channel of their own. If the channel survives, each has its outcome. If
 * the broker closes it, those that are left are divided, and each part is tried on a channel of its
 * own. One that closes its channel when it is alone is at fault.
 *
 * The broker's text is not asked: it is cut at 255 bytes, and the names in it are not quoted.
 */
export function createTrial(options: TrialOptions): Trial {
  const { open, width, isToBlame, onLost, onPassed, onCulprit, decided } = options;
  let running = 0;
  const queue: { readonly size: number; readonly start: () => void }[] = [];

  /** The largest group has the next turn: it has the most innocent messages. */
  async function inTurn<T>(size: number, attempt: () => Promise<T>): Promise<T> {
    while (running >= width()) await new Promise<void>((start) => queue.push({ size, start }));
    running += 1;
    try {
      return await attempt();
    } finally {
      running -= 1;
      queue.sort((one, other) => other.size - one.size);
      queue.shift()?.start();
    }
  }

  /** @returns those without an outcome, and how their channel has ended. */
  async function send(group: readonly Unsettled[]): Promise<{ readonly left: Unsettled[]; readonly cut?: Cut }> {
    let cut: Cut | undefined;
    const channel = await open((ended) => {
      cut = ended;
    });
    const left = new Set(group);
    for (const message of group) {
      const { sending, settle } = message;
      channel.push({
        sending,
        settle(outcome) {
          left.delete(message);
          if (hasPassed(outcome)) onPassed(message);
          settle(outcome);
        },
      });
    }
    await channel.drained();
    channel.close();
    return { left: [...left], ...(cut && { cut }) };
  }

  async function divide(group: readonly Unsettled[], began: number): Promise<void> {
    const { left, cut = OUTAGE } = await inTurn(group.length, () => attempt(group, began));
    const [first, second] = left;
    if (first === undefined) return;
    if (cut.failure === undefined || !isToBlame(cut)) return onLost(left, cut);
    if (second === undefined) return first.settle(onCulprit(first, cut.failure, cut.closed));
    const size = Math.ceil(left.length / PARTS);
    const sorted = left.toSorted(byDestination);
    const parts = Array.from({ length: Math.ceil(left.length / size) }, (_, n) =>
      sorted.slice(n * size, (n + 1) * size),
    );
    await Promise.all(parts.map((part) => divide(part, began)));
  }

  async function attempt(group: readonly Unsettled[], began: number): ReturnType<typeof send> {
    const undecided = group.filter((message) => {
      const outcome = decided(message, began);
      if (outcome !== undefined) message.settle(outcome);
      return outcome === undefined;
    });
    if (undecided.length === 0) return { left: [] };
    try {
      return await send(undecided);
    } catch (error) {
      const failure = error instanceof Error ? error : undefined;
      return { left: undecided, cut: { ...OUTAGE, failure } };
    }
  }

  return {
    get waiting() {
      return queue.length;
    },
    run: (messages) => divide(messages, performance.now()),
  };
}

/** So that most parts have culprits alone, or none. */
const byDestination = (one: Unsettled, other: Unsettled): number => {
  const [first, second] = [nameOf(one.sending), nameOf(other.sending)];
  return first < second ? -1 : Number(first > second);
};

const OUTAGE: Cut = { failure: undefined, closed: undefined, sent: [], unsent: [] };

/** The broker nacks and returns only what has passed to its exchange. */
const hasPassed = ({ kind }: Outcome): boolean => kind === 'confirmed' || kind === 'returned' || kind === 'nacked';
