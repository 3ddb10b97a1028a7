import { classOf, failureOf, type Received, type Verdict } from '@oncebox/message';
import { isRefusal, type Pool, type Transaction, transaction } from '@oncebox/mysql';
import { COMMIT_MS, type HandleAlone } from './alone.ts';
import type { Consumer } from './consumer.ts';
import { allow } from './deadline.ts';
import { UnstorableError } from './errors.ts';
import { holdFailed, originalOf } from './ordered/hold.ts';
import { addHeld, awaken, type Known, keyOf, knownOf } from './ordered/store.ts';
import { readBatch } from './reading.ts';
import { recordAll } from './record.ts';
import { concernsAll, handleInSavepoint } from './savepoints.ts';
import { type InboxSignals, signal } from './signals.ts';
import { type Failure, failed, unavailable } from './verdicts.ts';

/**
 * It was in hand when two processes ended before they had settled it: it may be what ended them.
 */
const isSuspect = ({ deliveredBefore = 0 }: Received): boolean => deliveredBefore > 1;

/**
 * So often is a message delivered whose failure a full store does not hold; then it is given up.
 */
const DELIVERIES_UNHELD = 20;

/** Ends the first step at what only the second deals with. */
const NOT_AT_ONCE = Symbol('not at once');

/**
 * Handles messages in one transaction, and answers with a verdict for each when it is committed. A
 * batch goes down three steps, each surer and dearer than the one before, and whatever a step did
 * is rolled back before the next:
 *
 * 1. One insert records all, then the handlers run. Any failure, and any duplicate, ends this step.
 * 2. Each message is recorded and handled in a savepoint, which is taken back with its record when
 *   it fails: a record that stayed would make its retry pass for a duplicate. The next batch begins
 *   with this step if anything failed in it.
 * 3. Each has a transaction of its own, when the transaction itself has failed: a deadlock again
 *   and again, a handler past the deadline, a connection that broke while the database is there, a
 *   COMMIT whose outcome is unknown. So only the message at fault pays for it, and those that were
 *   committed are duplicates.
 *
 * Savepoints from the start would cost a statement a message while nothing fails: see
 * docs/decisions/0004-inbox-batches.md.
 *
 * An ordered consumer holds what fails, and what comes behind it, in the transaction that handles
 * the others.
 */
export function handleTogether(
  pool: Pool,
  consumer: Consumer,
  alone: HandleAlone,
  isAway: () => Promise<boolean>,
): (batch: readonly Received[]) => Promise<readonly Verdict[]> {
  const { name, retryDelaysMs, deadlineMs, ordered } = consumer;
  let expectsFailures = false;

  const tell = (what: keyof InboxSignals, messages: readonly Received[]): void => {
    for (const { id } of messages) signal(what, { consumer: name, messageId: id });
  };

  /**
   * One READ COMMITTED transaction; the deadline is that of one message, for the whole of it.
   * `work` resolves with what it handled.
   */
  async function committed(work: (tx: Transaction, stop: AbortSignal) => Promise<readonly Received[]>): Promise<void> {
    const allowance = allow(name, deadlineMs);
    const handled = await transaction(
      pool,
      (tx) =>
        allowance.spend(async (stop) => {
          const messages = await work(tx, stop);
          tell('oncebox:inbox:handled', messages);
          return messages;
        }),
      { timeoutMs: deadlineMs + COMMIT_MS },
    );
    tell('oncebox:inbox:committed', handled);
  }

  const known = async (tx: Transaction, batch: readonly Received[]): Promise<Known> =>
    ordered === undefined ? { held: new Set(), givenUp: new Set() } : await knownOf(tx, name, batch);

  async function inRuns(batch: readonly Received[]): Promise<readonly Verdict[]> {
    const { runs, verdicts } = readBatch(consumer, batch, { joins: true });
    const messages = runs.flatMap((run) => run.messages);
    if (ordered !== undefined && (messages.length < batch.length || batch.some(isSuspect))) throw NOT_AT_ONCE;
    if (messages.length === 0) return verdicts;
    await committed(async (tx, stop) => {
      const { held, givenUp } = await known(tx, batch);
      if (held.size > 0 || givenUp.size > 0) throw NOT_AT_ONCE;
      const ids = messages.map(({ id }) => id);
      await recordAll(tx, name, ids);
      tell('oncebox:inbox:recorded', messages);
      for (const { work } of runs) {
        stop.throwIfAborted();
        await work(tx);
      }
      return messages;
    });
    return verdicts;
  }

  /** @param onFailure gets a handler's failure before the message is held for it. */
  async function inSavepoints(
    batch: readonly Received[],
    onFailure: (failure: Failure) => void = () => undefined,
    holdsSuspects = true,
  ): Promise<readonly Verdict[]> {
    const { runs, verdicts: readings } = readBatch(consumer, batch, { joins: false });
    const works = new Map(runs.map(({ at, work }) => [at, work]));
    const behind = new Set<string>();
    let verdicts: Verdict[] = [];

    async function verdictOn(
      tx: Transaction,
      message: Received,
      at: number,
      { held, givenUp }: Known,
    ): Promise<Verdict> {
      if (givenUp.has(message.id)) return { kind: 'duplicate' };
      const key = keyOf(message);
      if (held.has(key) || (ordered !== undefined && holdsSuspects && isSuspect(message))) {
        held.add(key);
        await addHeld(tx, name, { key, id: message.id, original: originalOf(message) });
        behind.add(key);
        return { kind: 'held' };
      }
      const work = works.get(at);
      const verdict =
        work === undefined ? (readings[at] ?? failed(undefined)) : await handleInSavepoint(tx, name, message.id, work);
      if (ordered === undefined || !('error' in verdict)) return verdict;
      if (verdict.kind === 'unavailable') throw verdict.error; // what may be an outage holds nothing
      const failure: Failure = { ...verdict, kind: verdict.kind };
      onFailure(failure);
      const kept = await holdFailed(tx, { name, retryDelaysMs, ...ordered }, message, failure);
      if (kept.held) held.add(key);
      else givenUp.add(message.id);
      return { kind: 'held', failure: verdict.error, dead: kept.dead };
    }

    await committed(async (tx, stop) => {
      verdicts = []; // the transaction may be repeated
      const what = await known(tx, batch);
      for (const [at, message] of batch.entries()) {
        stop.throwIfAborted();
        verdicts.push(await verdictOn(tx, message, at, what));
      }
      return batch.filter((_, at) => verdicts[at]?.kind === 'handled');
    });
    await awaken(pool, name, behind);
    return verdicts;
  }

  /**
   * An ordered consumer's way with one message that a batch could not be handled with. One that
   * cannot even be stored is dead, and its key goes on: delivered again and again, it would stop
   * all keys of its queue.
   */
  async function orderedAlone(message: Received, whenDead: 'hold' | 'continue'): Promise<Verdict> {
    let own: Failure | undefined;
    const attempt = async (holdsSuspects: boolean): Promise<Verdict> => {
      const note = (failure: Failure): void => {
        own = failure;
      };
      const [verdict] = await inSavepoints([message], note, holdsSuspects);
      return verdict ?? { kind: 'held' };
    };
    try {
      return await attempt(true).catch(async (error: unknown) => {
        // A store that has no room holds nothing, and most that were in hand when a process ended
        // are innocent.
        if (!isSuspect(message) || !isRefusal(error) || (await isAway())) throw error;
        return await attempt(false);
      });
    } catch (error) {
      if (await isAway()) return unavailable(error);
      const failure = own ?? failed(error);
      try {
        const settings = { name, retryDelaysMs, whenDead };
        const { dead } = await transaction(pool, (tx) => holdFailed(tx, settings, message, failure));
        return { kind: 'held', failure: failure.error, dead };
      } catch (unstorable) {
        if (await isAway()) return unavailable(unstorable);
        // A store that is full takes this message when there is room again. The queue waits with
        // it, so a failure of its own is not waited for without end.
        const { deliveredBefore = 0 } = message;
        const waits = own === undefined || deliveredBefore < DELIVERIES_UNHELD;
        if (isRefusal(unstorable) && waits) return unavailable(unstorable);
        return { kind: 'dead', error: notHeld(own?.error, unstorable) };
      }
    }
  }
  const single: HandleAlone = ordered === undefined ? alone : (message) => orderedAlone(message, ordered.whenDead);

  return async (batch) => {
    const [first] = batch;
    if (first !== undefined && batch.length === 1 && ordered === undefined) return [await single(first)];
    try {
      if (!expectsFailures) {
        try {
          return await inRuns(batch);
        } catch (error) {
          if (concernsAll(error)) throw error;
        }
      }
      const verdicts = await inSavepoints(batch);
      expectsFailures = verdicts.some(({ kind }) => kind !== 'handled' && kind !== 'duplicate');
      return verdicts;
    } catch (error) {
      if (await isAway()) return batch.map(() => unavailable(error));
      return await eachAlone(batch, single, ordered !== undefined);
    }
  };
}

/**
 * By their classes: the dead letter is to say both why it failed, if it was tried, and why its key
 * did not wait for it.
 */
function notHeld(failure: Error | undefined, unstorable: unknown): UnstorableError {
  const why = failure === undefined ? 'it was to wait behind its key' : classOf(failure);
  const text = `${why}; and it cannot be held (${classOf(failureOf(unstorable))}), so its key went on without it: a replay comes behind what its key has had since`;
  return new UnstorableError('ONCEBOX_NOT_HELD', text);
}

/**
 * Side by side, but those of one key one after the other; in order, an outage that one of them
 * meets is one for those behind it.
 */
async function eachAlone(
  batch: readonly Received[],
  alone: HandleAlone,
  inOrder: boolean,
): Promise<readonly Verdict[]> {
  const keyed = new Map<string, Promise<Verdict>>();
  return await Promise.all(
    batch.map((message) => {
      const key = keyOf(message);
      const before = keyed.get(key);
      const verdict = (async () => {
        const previous = await before;
        return inOrder && previous?.kind === 'unavailable' ? previous : await alone(message);
      })();
      keyed.set(key, verdict);
      return verdict;
    }),
  );
}
