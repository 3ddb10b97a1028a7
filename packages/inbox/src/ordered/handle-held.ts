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
import { handleInSavepoint } from '../savepoints.ts';
import { signal } from '../signals.ts';
import { type Failure, failed, unreadable } from '../verdicts.ts';
import { fail, failingKeys, type Hand, outcomeOf } from './failing.ts';
import { LeftOut } from './left-out.ts';
import { addBegun, awaken, type Due, dropHead, dropKey, type Head, headOf, lockDue, lockKey } from './store.ts';

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

/** How far a look for a held message has come. */
interface Look {
  due: Due | undefined;
  hand: Hand | undefined;
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
  const settings = { name, retryDelaysMs, whenDead };
  const begun = new Set<string>();
  const leftOut = new LeftOut();
  const afterFailure = failingKeys(pool, settings, leftOut, isAway);
  let lookedAt = performance.now();

  const attempt = (tx: Transaction, { attempts }: Due, received: Received, allowance: Allowance) =>
    inHandleSpan(
      () => {
        const { correlationId } = received.lineage;
        const attempt = attempts + 1;
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

  /** Counted before anything can go wrong, and once for each process: one that meets an outage and tries again has not crashed. */
  async function begin(tx: Transaction, look: Look): Promise<Due | undefined> {
    const due = await lockDue(tx, name, leftOut.keys());
    look.due = due;
    if (due === undefined || begun.has(due.key)) return due;
    await addBegun(tx, name, due.key);
    begun.add(due.key);
    return due;
  }

  async function handleHead(
    tx: Transaction,
    key: string,
    look: Look,
    allowance: Allowance,
  ): Promise<HeldOutcome | undefined> {
    look.hand = undefined; // the transaction may be repeated
    const due = await lockKey(tx, name, key);
    if (due === undefined) return undefined; // somebody else has had it in between
    const head = await headOf(tx, name, key);
    if (head === undefined) return await dropKey(tx, name, key); // two have awakened it, and one was late
    const read = receivedOf(head);
    const hand = { due, head, read };
    look.hand = hand;
    if ('error' in read) return await fail(tx, settings, hand, read);
    if (due.begun > CRASHES) return await fail(tx, settings, hand, crashed(name));
    const verdict = await attempt(tx, due, read, allowance);
    if (verdict.kind === 'unavailable') throw verdict.error;
    if ('error' in verdict) return await fail(tx, settings, hand, verdict);
    await dropHead(tx, name, key, head.seq);
    if (verdict.kind === 'handled') signal('oncebox:inbox:handled', { consumer: name, messageId: head.id });
    return { ...outcomeOf(due, hand), dead: false };
  }

  async function handleNext(look: Look): Promise<HeldOutcome | undefined> {
    const due = await transaction(pool, (tx) => begin(tx, look));
    if (due === undefined) return undefined;
    const allowance = allow(name, deadlineMs);
    const timeoutMs = deadlineMs + COMMIT_MS;
    const outcome = await transaction(pool, (tx) => handleHead(tx, due.key, look, allowance), { timeoutMs });
    if (outcome?.messageId !== undefined && outcome.failure === undefined) {
      signal('oncebox:inbox:committed', { consumer: name, messageId: outcome.messageId });
    }
    return outcome;
  }

  return async () => {
    if (performance.now() - lookedAt > ORPHANS_MS) {
      lookedAt = performance.now();
      await awaken(pool, name);
    }
    const look: Look = { due: undefined, hand: undefined };
    const outcome = await handleNext(look).catch(async (error: unknown) => {
      if (look.due === undefined || (await isAway())) throw error;
      return await afterFailure(look.due, look.hand, error);
    });
    if (look.due === undefined || outcome?.waits === 'left out') return outcome;
    const { key } = look.due;
    begun.delete(key);
    leftOut.delete(key);
    await awaken(pool, name, new Set([key]));
    return outcome;
  };
}

/** Written by ourselves, from a message that could be read; but a hand at the database may have changed it. */
function receivedOf(head: Head): Received | Failure {
  const { properties, body, routingKey } = head;
  try {
    return { ...fromWire({ content: body, routingKey, properties: JSON.parse(properties) }), original: head };
  } catch (error) {
    return unreadable(error);
  }
}
