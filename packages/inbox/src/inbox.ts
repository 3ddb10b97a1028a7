import { randomUUID } from 'node:crypto';
import { type Inbox, MessageError, type Verdict } from '@oncebox/message';
import { isDuplicateKey, isUnavailable, type Pool, type Transaction, transaction } from '@oncebox/mysql';
import type { Consumer, Work } from './consumer.ts';
import { deadLetters } from './dead-letters.ts';
import { allow, HandlerDeadlineError } from './deadline.ts';
import { NonRetryableError } from './errors.ts';
import { register } from './registration.ts';

/** Thrown through a transaction to roll it back. */
const ROLLBACK = Symbol('rollback');

/** What a commit may take beyond its handler's deadline, which cannot be known to have failed before its connection has. */
const COMMIT_MS = 10_000;

/**
 * The inbox of a consumer: `process` records a message's id and does its handler's work in one READ COMMITTED transaction, so that a
 * message takes effect once. It says whether to acknowledge the message, to try again later, to give up, or to wait for the
 * database.
 */
export function createInbox(pool: Pool, consumer: Consumer): Inbox {
  const { name, routingKeys, retryDelaysMs, deadlineMs } = consumer;

  /** Writes and rolls back, which a server that answers but takes no writes refuses. */
  async function probe(): Promise<void> {
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

  /** A handler that hangs in a statement and a server that no longer answers look alike from here, but only the first is to blame. */
  const isOutage = async (error: unknown): Promise<boolean> =>
    isUnavailable(error) || (error instanceof HandlerDeadlineError && (await probe().then(() => false, isUnavailable)));

  return {
    name,
    routingKeys,
    retryDelaysMs,
    probe,
    register: () => register(pool, consumer),
    deadLetters: deadLetters(pool, name),

    async process(received) {
      const { type, version } = received;
      const handling = consumer.handlingOf(type, version);
      // Later rather than never: during a deployment the next worker may know it.
      if (handling === undefined) return retry(unknownMessage(name, type, version));

      let prepare: (signal: AbortSignal) => Promise<Work>;
      try {
        prepare = handling.read(received);
      } catch (error) {
        return { kind: 'dead', error: asError(error) };
      }
      const allowance = allow(name, deadlineMs);
      let work: Work;
      try {
        work = await allowance.spend(prepare);
      } catch (error) {
        return failed(error);
      }
      try {
        await transaction(
          pool,
          (tx) =>
            allowance.spend(async () => {
              await record(tx, name, received.id);
              await work(tx);
            }),
          { timeoutMs: deadlineMs + COMMIT_MS },
        );
        return { kind: 'handled' };
      } catch (error) {
        if (error === ROLLBACK) return { kind: 'duplicate' };
        // A commit of unknown outcome is among these: the message comes again, and its row then tells whether it was done.
        return (await isOutage(error)) ? { kind: 'unavailable', error: asError(error) } : failed(error);
      }
    },
  };
}

/**
 * First of all, so that of two copies of a message the second waits here for the first to end. Looking first and inserting
 * later would let both pass, and INSERT IGNORE would take any other error for a duplicate.
 *
 * @throws ROLLBACK for a message that is recorded already. Only here is 1062 a duplicate: in a handler it is a failure.
 */
async function record(tx: Transaction, consumer: string, messageId: string): Promise<void> {
  try {
    await tx.execute('INSERT INTO processed_messages (consumer, message_id) VALUES (?, ?)', [
      consumer,
      Buffer.from(messageId, 'utf8'),
    ]);
  } catch (error) {
    throw isDuplicateKey(error) ? ROLLBACK : error;
  }
}

const retry = (error: Error): Verdict => ({ kind: 'retry', error });
const failed = (error: unknown): Verdict =>
  error instanceof NonRetryableError ? { kind: 'dead', error } : retry(asError(error));
const asError = (value: unknown): Error =>
  value instanceof Error ? value : new Error(`not an Error: ${typeof value}`);

const unknownMessage = (consumer: string, type: string, version: number): MessageError =>
  new MessageError(
    'ONCEBOX_UNKNOWN_MESSAGE',
    `${consumer} handles no ${type} v${version}: add on(<its contract>, { handle }), or unbind its queue from that key`,
  );
