import { randomUUID } from 'node:crypto';
import type { Inbox, Received, Verdict } from '@oncebox/message';
import { assertSuitable, isUnavailable, type Pool, transaction } from '@oncebox/mysql';
import { handleAlone } from './alone.ts';
import type { Consumer } from './consumer.ts';
import { deadLetters } from './dead-letters.ts';
import { inLanes } from './lanes.ts';
import { handleHeld } from './ordered/handle-held.ts';
import { heldLetters } from './ordered/letters.ts';
import { awaken } from './ordered/store.ts';
import { record } from './record.ts';
import { register } from './registration.ts';
import { signal } from './signals.ts';
import { handleTogether } from './together.ts';
import { explainUnknown } from './unknown.ts';
import { unavailable } from './verdicts.ts';
import { presenceOf } from './workers.ts';

/** Thrown through a transaction to roll it back. */
const ROLLBACK = Symbol('rollback');

/**
 * The inbox of a consumer: `process` records a message's id and does its handler's work in one READ COMMITTED transaction, so that a
 * message takes effect once. It says whether to acknowledge the message, to try again later, to give up, or to wait for the
 * database. History that its handlers do not take is acknowledged without effect. Calls that come together may share a transaction; each has its answer when that is committed.
 */
export function createInbox(pool: Pool, consumer: Consumer): Inbox {
  const { name, bindings, retryDelaysMs, batch, ordered } = consumer;

  /** Writes and rolls back, which a server that answers but takes no writes refuses. */
  async function probe(): Promise<void> {
    await assertSuitable(pool);
    const attempt = transaction(
      pool,
      async (tx) => {
        await record(tx, name, `probe ${randomUUID()}`);
        throw ROLLBACK;
      },
      { attempts: 1, timeoutMs: 5_000 },
    );
    await attempt.catch((error) => {
      if (error !== ROLLBACK) throw error;
    });
  }
  const isAway = (): Promise<boolean> => probe().then(() => false, isUnavailable);

  /** Not recorded either: the message itself may still be in a queue, to have its effect when its turn comes. */
  const isUnwanted = ({ type, version, replayed }: Received): boolean =>
    replayed === true && consumer.handlingOf(type, version)?.replays === false;

  /** An ordered consumer does this where it holds the message. */
  async function explain(received: Received, error: Error): Promise<Verdict> {
    try {
      const failure = { kind: 'retry', error } as const;
      return await transaction(pool, (tx) => explainUnknown(tx, name, failure, received), { timeoutMs: 10_000 });
    } catch (unanswered) {
      return isUnavailable(unanswered) || (await isAway()) ? unavailable(unanswered) : { kind: 'retry', error };
    }
  }

  async function timed<T>(messages: number, work: Promise<T>): Promise<T> {
    const began = performance.now();
    try {
      return await work;
    } finally {
      signal('oncebox:inbox:worked', { consumer: name, messages, seconds: (performance.now() - began) / 1_000 });
    }
  }

  const alone = handleAlone(pool, consumer, isAway);
  const together = handleTogether(pool, consumer, alone, isAway);
  const handle =
    batch === 1 && ordered === undefined
      ? (received: Received) => timed(1, alone(received))
      : inLanes(batch, (messages) => timed(messages.length, together(messages)), ordered !== undefined);
  return {
    name,
    bindings,
    retryDelaysMs,
    probe,
    presence: presenceOf(pool, consumer),
    async register() {
      await register(pool, consumer);
      if (ordered !== undefined) await awaken(pool, name);
    },
    deadLetters: (ordered === undefined ? deadLetters : heldLetters)(pool, name, isAway),
    ...(ordered === undefined ? {} : { ordered: { handleHeld: handleHeld(pool, consumer, ordered.whenDead, isAway) } }),
    async process(received) {
      if (isUnwanted(received)) return { kind: 'skipped' };
      const verdict = await handle(received);
      const isUnknown = verdict.kind === 'retry' && consumer.handlingOf(received.type, received.version) === undefined;
      return isUnknown && ordered === undefined ? await explain(received, verdict.error) : verdict;
    },
  };
}
