import { fieldOf, type Received, type Verdict } from '@oncebox/message';
import { isUnavailable, type Pool, transaction } from '@oncebox/mysql';
import type { Consumer } from './consumer.ts';
import { allow, isDeadline } from './deadline.ts';
import type { Work } from './handling.ts';
import { DUPLICATE, record } from './record.ts';
import { type InboxSignal, signal } from './signals.ts';
import { failed, unavailable, unknownMessage, unreadable } from './verdicts.ts';

/** What a commit may take beyond its handler's deadline, which cannot be known to have failed before its connection has. */
export const COMMIT_MS = 10_000;

export type HandleAlone = (received: Received) => Promise<Verdict>;

/** Handles one message in a transaction of its own. @param isAway asks the database. */
export function handleAlone(pool: Pool, consumer: Consumer, isAway: () => Promise<boolean>): HandleAlone {
  const { name, deadlineMs } = consumer;

  /** A handler that hangs in a statement and a server that no longer answers look alike from here, but only the first is to blame. */
  const isOutage = async (error: unknown): Promise<boolean> =>
    isUnavailable(error) || (isDeadline(error) && (await isAway()));

  return async (received) => {
    const handling = consumer.handlingOf(received.type, received.version);
    if (handling === undefined) return unknownMessage(consumer, received);
    const allowance = allow(name, deadlineMs);
    const { redeem } = handling;
    let whole = received;
    try {
      if (redeem !== undefined) whole = await allowance.spend((signal) => redeem(received, signal));
    } catch (error) {
      return fieldOf(error, 'code') === 'ONCEBOX_MALFORMED_MESSAGE' ? unreadable(error) : failed(error);
    }
    let prepare: (signal: AbortSignal) => Promise<Work>;
    try {
      prepare = handling.read(whole);
    } catch (error) {
      return unreadable(error);
    }
    let work: Work;
    try {
      work = await allowance.spend(prepare);
    } catch (error) {
      // Only with a database that is away: an address that `prepare` calls refuses connections in the same words.
      return isUnavailable(error) && (await isAway()) ? unavailable(error) : failed(error);
    }
    const signalled: InboxSignal = { consumer: name, messageId: received.id };
    try {
      await transaction(
        pool,
        (tx) =>
          allowance.spend(async () => {
            await record(tx, name, received.id);
            signal('oncebox:inbox:recorded', signalled);
            await work(tx);
            signal('oncebox:inbox:handled', signalled);
          }),
        { timeoutMs: deadlineMs + COMMIT_MS },
      );
      signal('oncebox:inbox:committed', signalled);
      return { kind: 'handled' };
    } catch (error) {
      if (error === DUPLICATE) return { kind: 'duplicate' };
      // A commit of unknown outcome is among these: the message comes again, and its row then tells whether it was done.
      return (await isOutage(error)) ? unavailable(error) : failed(error);
    }
  };
}
