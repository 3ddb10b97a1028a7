import type { HeldOutcome, Received } from '@oncebox/message';
import { type Pool, type Transaction, transaction } from '@oncebox/mysql';
import type { Consumer, WhenDead } from '../consumer.ts';
import { type Failure, failed } from '../verdicts.ts';
import { scheduleAfter } from './hold.ts';
import { type LeftOut, pauseAfter } from './left-out.ts';
import { type Due, dropHead, type Head, headOf, lockKey, reschedule } from './store.ts';

/** The first message of a held key, with the lock on the key's row. */
export interface Hand {
  readonly due: Due;
  readonly head: Head;
  /** The head as a message, or why it cannot be read. */
  readonly read: Received | Failure;
}

export const outcomeOf = ({ key, attempts }: Due, hand: Hand | undefined) => ({
  key,
  messageId: hand?.head.id,
  correlationId: hand === undefined || 'error' in hand.read ? undefined : hand.read.lineage.correlationId,
  attempts: attempts + 1,
});

/** What becomes of a held message that failed: it is due again later, or it is a dead letter. */
export async function fail(
  tx: Transaction,
  { name, retryDelaysMs, whenDead }: Pick<Consumer, 'name' | 'retryDelaysMs'> & { readonly whenDead: WhenDead },
  hand: Hand,
  failure: Failure,
): Promise<HeldOutcome> {
  const { due, head, read } = hand;
  const { key, firstFailedAt } = due;
  const attempts = due.attempts + 1;
  const received = 'error' in read ? { id: head.id, original: head } : read;
  const schedule = await scheduleAfter(tx, name, retryDelaysMs, { received, failure, attempts, firstFailedAt });
  const dead = schedule.deadLetter !== undefined;
  if (dead && whenDead === 'continue') await dropHead(tx, name, key, head.seq);
  else await reschedule(tx, name, key, schedule);
  return { ...outcomeOf(due, hand), failure: failure.error, dead };
}

/**
 * What becomes of a key whose transaction failed while the database was there; with the
 * transaction, whatever it had written of the failure is gone. It is written down in a second one.
 * Where that fails too, the key is put off, by a statement that takes nothing of the message or of
 * what was thrown. Where not even that is possible, this process leaves the key out for a while:
 * the trouble of one key must not be that of the others.
 *
 * @throws what the database says of an outage, and when too many keys are left out to be the
 *   trouble of single ones.
 */
export function failingKeys(
  pool: Pool,
  settings: Parameters<typeof fail>[1],
  leftOut: LeftOut,
  isAway: () => Promise<boolean>,
): (due: Due, hand: Hand | undefined, error: unknown) => Promise<HeldOutcome | undefined> {
  const { name } = settings;

  const writeDown = (hand: Hand, failure: Failure) =>
    transaction(pool, async (tx) => {
      const due = await lockKey(tx, name, hand.due.key);
      // Somebody else may have had it since.
      if (due === undefined || (await headOf(tx, name, due.key))?.seq !== hand.head.seq) return undefined;
      return await fail(tx, settings, { ...hand, due }, failure);
    });

  const putOff = (key: string) =>
    transaction(pool, async (tx) => {
      const due = await lockKey(tx, name, key);
      if (due === undefined) return;
      const attempts = due.attempts + 1;
      await reschedule(tx, name, key, { attempts, inMs: pauseAfter(attempts) });
    });

  return async (due, hand, error) => {
    const failure = failed(error);
    try {
      if (hand !== undefined) return await writeDown(hand, failure);
    } catch (unwritten) {
      if (await isAway()) throw unwritten;
    }
    const outcome = { ...outcomeOf(due, hand), failure: failure.error, dead: false };
    try {
      await putOff(due.key);
      return { ...outcome, waits: 'put off' };
    } catch (unwritten) {
      if ((await isAway()) || !leftOut.add(due.key)) throw unwritten;
      return { ...outcome, waits: 'left out' };
    }
  };
}
