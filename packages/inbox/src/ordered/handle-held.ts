import {
  fromWire,
  type HeldOutcome,
  inActiveTrace,
  inHandleSpan,
  type Received,
  recordVerdict,
} from '@oncebox/message';
import { type Pool, type Transaction, transaction } from '@oncebox/mysql';
import { COMMIT_MS } from '../alone.ts';
import type { Consumer, WhenDead } from '../consumer.ts';
import { type Allowance, allow } from '../deadline.ts';
import { InboxError } from '../errors.ts';
import { readBatch } from '../reading.ts';
import { concernsAll, handleInSavepoint } from '../savepoints.ts';
import { signal } from '../signals.ts';
import { type Failure, failed } from '../verdicts.ts';
import { scheduleAfter } from './hold.ts';
import {
  addBegun,
  awaken,
  type Due,
  dropHead,
  dropKey,
  type Head,
  headOf,
  lockDue,
  lockKey,
  reschedule,
} from './store.ts';

/** Between two looks for held messages whose key nobody has noted, in milliseconds: whoever was to look may have died before it did. */
const ORPHANS_MS = 5_000;

/** So often may a process end while it handles a message. */
const CRASHES = 5;

const crashed = (consumer: string): Failure => ({
  kind: 'dead',
  error: new InboxError(
    'ONCEBOX_HANDLER_CRASHED',
    `The process ended ${CRASHES} times while ${consumer} handled this message`,
  ),
});

interface Hand {
  readonly due: Due;
  readonly head: Head;
  readonly received: Received;
}

/**
 * Handles the first message of a held key that is due, in one transaction with what becomes of it: it leaves and the next one is due,
 * it is due again later, or it is a dead letter. The lock on the key's row makes sure that nobody else is at that key.
 */
export function handleHeld(
  pool: Pool,
  consumer: Consumer,
  whenDead: WhenDead,
  isAway: () => Promise<boolean>,
): () => Promise<HeldOutcome | undefined> {
  const { name, deadlineMs, retryDelaysMs } = consumer;
  const begun = new Set<string>();
  let lookedAt = performance.now();

  const attempt = (tx: Transaction, { due, received }: Hand, allowance: Allowance) =>
    inHandleSpan(
      () => {
        const { correlationId } = received.lineage;
        const attempt = due.attempts + 1;
        return { ...received, correlationId, consumer: name, exchange: '', attempt, carrier: received.lineage };
      },
      async () => {
        const { runs, verdicts } = readBatch(consumer, [inActiveTrace(received)], { joins: false });
        const [run] = runs;
        const verdict =
          run === undefined
            ? (verdicts[0] ?? failed(undefined))
            : await allowance.spend(() => handleInSavepoint(tx, name, received.id, run.work));
        recordVerdict(verdict);
        return verdict;
      },
    );

  async function fail(tx: Transaction, { due, head, received }: Hand, failure: Failure): Promise<HeldOutcome> {
    const { key, firstFailedAt } = due;
    const attempts = due.attempts + 1;
    const schedule = await scheduleAfter(tx, name, retryDelaysMs, { received, failure, attempts, firstFailedAt });
    const dead = schedule.deadLetter !== undefined;
    if (dead && whenDead === 'continue') await dropHead(tx, name, key, head.seq);
    else await reschedule(tx, name, key, schedule);
    const { correlationId } = received.lineage;
    return { messageId: head.id, correlationId, failure: failure.error, attempts, dead };
  }

  /** Counted before anything can go wrong, and once for each process: one that meets an outage and tries again has not crashed. */
  async function begin(tx: Transaction): Promise<Due | undefined> {
    const due = await lockDue(tx, name);
    if (due === undefined || begun.has(due.key)) return due;
    await addBegun(tx, name, due.key);
    begun.add(due.key);
    return due;
  }

  return async () => {
    if (performance.now() - lookedAt > ORPHANS_MS) {
      lookedAt = performance.now();
      await awaken(pool, name);
    }
    const due = await transaction(pool, begin);
    if (due === undefined) return undefined;
    const { key } = due;
    const allowance = allow(name, deadlineMs);
    let hand: Hand | undefined;
    const inOneTransaction = async (tx: Transaction): Promise<HeldOutcome | undefined> => {
      hand = undefined;
      const due = await lockKey(tx, name, key);
      if (due === undefined) return undefined; // somebody else has had it in between
      const head = await headOf(tx, name, due.key);
      if (head === undefined) return await dropKey(tx, name, key); // two have awakened it, and one was late
      const received = receivedOf(head);
      hand = { due, head, received };
      if (due.begun > CRASHES) return await fail(tx, hand, crashed(name));
      const verdict = await attempt(tx, hand, allowance);
      if ('error' in verdict) return await fail(tx, hand, verdict);
      await dropHead(tx, name, key, head.seq);
      if (verdict.kind === 'handled') signal('oncebox:inbox:handled', { consumer: name, messageId: head.id });
      const { correlationId } = received.lineage;
      return { messageId: head.id, correlationId, attempts: due.attempts + 1, dead: false };
    };

    const inASecondOne = async (error: unknown): Promise<HeldOutcome | undefined> => {
      // The first is gone, and with it what it would have said of the failure.
      const lost = hand;
      if (lost === undefined || !concernsAll(error) || (await isAway())) throw error;
      return await transaction(pool, async (tx) => {
        const due = await lockKey(tx, name, key);
        if (due === undefined || (await headOf(tx, name, key))?.seq !== lost.head.seq) return undefined;
        return await fail(tx, { ...lost, due }, failed(error));
      });
    };

    const outcome = await transaction(pool, inOneTransaction, { timeoutMs: deadlineMs + COMMIT_MS }).catch(
      inASecondOne,
    );
    if (outcome !== undefined && outcome.failure === undefined) {
      signal('oncebox:inbox:committed', { consumer: name, messageId: outcome.messageId });
    }
    begun.delete(key);
    await awaken(pool, name, new Set([key]));
    return outcome;
  };
}

function receivedOf(head: Head): Received {
  const { properties, body, routingKey } = head;
  // Written by ourselves, from a message that could be read.
  return { ...fromWire({ content: body, routingKey, properties: JSON.parse(properties) }), original: head };
}
