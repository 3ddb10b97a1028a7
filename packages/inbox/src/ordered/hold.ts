import { randomBytes } from 'node:crypto';
import { type DeadMessage, delayUncounted, nameOf, type Received, reasonOf } from '@oncebox/message';
import type { Transaction } from '@oncebox/mysql';
import type { Consumer, WhenDead } from '../consumer.ts';
import { insertDeadLetter } from '../letter-columns.ts';
import { explainUnknown } from '../unknown.ts';
import type { Failure } from '../verdicts.ts';
import { addHeld, addKey, keyOf, type Schedule } from './store.ts';

export const originalOf = ({ id, original }: Held): DeadMessage => {
  if (original === undefined) throw new Error(`An ordered consumer was given ${id} without its original`);
  return original;
};

/** A message that failed its first attempt, in the transaction that also commits the others. @returns whether its key is held now, and whether the message is a dead letter. */
export async function holdFailed(
  tx: Transaction,
  { name, retryDelaysMs, whenDead }: Pick<Consumer, 'name' | 'retryDelaysMs'> & { readonly whenDead: WhenDead },
  received: Received,
  failure: Failure,
): Promise<{ readonly held: boolean; readonly dead: boolean }> {
  const key = keyOf(received);
  const schedule = await scheduleAfter(tx, name, retryDelaysMs, {
    received,
    failure,
    attempts: 1,
    firstFailedAt: null,
  });
  const dead = schedule.deadLetter !== undefined;
  if (dead && whenDead === 'continue') return { held: false, dead };
  await addKey(tx, name, key, schedule);
  await addHeld(tx, name, { key, id: received.id, original: originalOf(received) });
  return { held: true, dead };
}

/** When to try again; after the last attempt it writes the dead letter instead. */
export async function scheduleAfter(
  tx: Transaction,
  consumer: string,
  retryDelaysMs: readonly number[],
  { received, failure: given, attempts, firstFailedAt }: Failed,
): Promise<Schedule> {
  const { type, version } = received;
  const isUnknown = given.unknown && type !== undefined && version !== undefined;
  const failure = isUnknown ? await explainUnknown(tx, consumer, given, { type, version }) : given;
  if (failure.uncounted !== undefined) {
    const waitedMs = firstFailedAt === null ? 0 : Date.now() - firstFailedAt.getTime();
    return { attempts: attempts - 1, inMs: delayUncounted(failure.uncounted, retryDelaysMs, waitedMs) };
  }
  const inMs = failure.kind === 'dead' ? undefined : retryDelaysMs[attempts - 1];
  if (inMs !== undefined) return { attempts, inMs };
  const now = new Date();
  const deadLetter = await insertDeadLetter(tx, consumer, {
    ...originalOf(received),
    messageId: received.id,
    type: received.type,
    version: received.version,
    occurredAt: received.occurredAt,
    reason: reasonOf(failure.error),
    errorClass: nameOf(failure.error),
    attempts,
    firstFailedAt: firstFailedAt ?? now,
    lastFailedAt: now,
    // The transaction sees to it that there is one; this tells it from other deaths of the same message.
    copyHash: randomBytes(32),
  });
  return { attempts, deadLetter };
}

/** What a dead letter needs of a message; one that cannot be read has no type. */
export type Held = Pick<Received, 'id' | 'original'> & Partial<Pick<Received, 'type' | 'version' | 'occurredAt'>>;

interface Failed {
  readonly received: Held;
  readonly failure: Failure;
  /** With this one. */
  readonly attempts: number;
  readonly firstFailedAt: Date | null;
}
