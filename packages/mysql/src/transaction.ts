import { setTimeout as delay } from 'node:timers/promises';
import type { Pool, PoolConnection } from 'mysql2/promise';
import { DatabaseError, errnoOf, isContention, isUnavailable } from './errors.ts';
import { isReadCommitted } from './pool.ts';
import { signal } from './signals.ts';

declare const begun: unique symbol;

/**
 * An open transaction: mysql2's `query` and `execute`, and the proof that somebody has begun it and will end it. A pool or a
 * bare connection is not one, to the compiler and (`assertTransaction`) at run time.
 */
export interface Transaction {
  readonly query: PoolConnection['query'];
  readonly execute: PoolConnection['execute'];
  readonly [begun]: true;
}

const open = new WeakSet<object>();
const DEADLOCK = 1213;
const KILL_MS = 1_000;

/**
 * @internal Makes the handle. `end` makes it useless, so that a query after the end is an error and not an autocommit. A deadlock does
 * the same: the server has ended the transaction, and what a caller who caught the error went on to write would be committed
 * statement by statement. `deadlock` tells that error to whoever is about to commit.
 */
export function handle(connection: Pick<PoolConnection, 'query' | 'execute'>): {
  tx: Transaction;
  end: () => void;
  deadlock: () => unknown;
} {
  let ended = false;
  let deadlock: unknown;
  const guarded = <F extends (...args: never[]) => unknown>(call: F): F =>
    new Proxy(call, {
      apply(target, _self, args) {
        if (ended)
          throw new DatabaseError(
            'ONCEBOX_NOT_A_TRANSACTION',
            'This transaction has ended: await every query inside it',
          );
        if (deadlock !== undefined) throw transactionLost(deadlock);
        const result: unknown = Reflect.apply(target, connection, args);
        if (result instanceof Promise) {
          result.catch((error: unknown) => {
            if (errnoOf(error) === DEADLOCK) deadlock = error;
          });
        }
        return result;
      },
    });
  // The one place where the brand is given: the object carries exactly what the type says, but for the compile-time symbol.
  const tx = { query: guarded(connection.query), execute: guarded(connection.execute) } as Transaction;
  open.add(tx);
  return {
    tx,
    end: () => {
      ended = true;
      open.delete(tx);
    },
    deadlock: () => deadlock,
  };
}

/** @internal */
export const transactionLost = (cause: unknown): DatabaseError =>
  new DatabaseError(
    'ONCEBOX_TRANSACTION_LOST',
    'A deadlock has ended this transaction, and its error was caught: pass it on, so that the whole is repeated',
    { cause },
  );

/**
 * Refuses what is no open transaction. Called by everything that must be atomic with the caller's own writes.
 *
 * @throws DatabaseError ONCEBOX_NOT_A_TRANSACTION that says what to pass instead.
 */
export function assertTransaction(value: unknown): asserts value is Transaction {
  if (typeof value === 'object' && value !== null && open.has(value)) return;
  const got =
    typeof value === 'object' && value !== null && 'getConnection' in value
      ? 'a pool'
      : typeof value === 'object' && value !== null && 'execute' in value
        ? 'a bare connection, or a transaction that has ended'
        : `${typeof value}`;
  throw new DatabaseError(
    'ONCEBOX_NOT_A_TRANSACTION',
    `Expected an open transaction and got ${got}. Inside transaction(pool, async (tx) => …) pass tx; on a connection where ` +
      'your own library has begun a transaction pass fromConnection(connection).',
  );
}

export interface TransactionOptions {
  /** How often to run the closure in all when the server reports contention (1205, 1213). Default 5. */
  readonly attempts?: number;
  /**
   * Milliseconds for one attempt, the commit included; then the connection is destroyed. An attempt may wait as long again
   * for a connection of the pool before it begins. Default 30,000.
   */
  readonly timeoutMs?: number;
}

/**
 * Runs `work` in one READ COMMITTED transaction: commits when it resolves, rolls back and rethrows when it rejects.
 *
 * On a deadlock (1213) or a lock wait timeout (1205) it rolls back everything and runs **the whole closure again**, after a
 * pause with jitter: the first has lost the transaction and the second a statement of it, so repeating the last statement
 * would commit half of the work. So `work` must have no effect outside the transaction.
 *
 * @throws DatabaseError ONCEBOX_COMMIT_UNKNOWN when the connection broke while COMMIT was under way: it may have happened.
 *   ONCEBOX_NO_CONNECTION when the pool had none in time: nothing has been done.
 */
export async function transaction<T>(
  pool: Pool,
  work: (tx: Transaction) => Promise<T>,
  { attempts = 5, timeoutMs = 30_000 }: TransactionOptions = {},
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await runOnce(pool, work, timeoutMs);
    } catch (error) {
      if (!isRepeatable(error) || attempt >= attempts) throw error;
      await delay(Math.random() * 20 * 2 ** attempt);
    }
  }
}

/** A deadlock may come wrapped: out of a savepoint, or from a caller that caught it and went on. */
const isRepeatable = (error: unknown): boolean =>
  isContention(error) ||
  (error instanceof DatabaseError && error.code === 'ONCEBOX_TRANSACTION_LOST' && isContention(error.cause));

async function runOnce<T>(pool: Pool, work: (tx: Transaction) => Promise<T>, timeoutMs: number): Promise<T> {
  const connection = await acquire(pool, timeoutMs);
  const { tx, end, deadlock } = handle(connection);
  const deadline = Promise.withResolvers<never>();
  deadline.promise.catch(() => undefined);
  let expired = false;
  const timer = setTimeout(() => {
    expired = true;
    deadline.reject(
      Object.assign(new Error(`The transaction did not end within ${timeoutMs} ms`), {
        code: 'ETIMEDOUT',
        fatal: true,
      }),
    );
  }, timeoutMs);
  const bounded = <R>(promise: Promise<R>): Promise<R> => Promise.race([promise, deadline.promise]);
  let committing = false;
  try {
    if (!isReadCommitted(connection)) {
      // SET TRANSACTION is for the next transaction only; SET SESSION would leak to the connection's next borrower.
      await bounded(connection.query('SET TRANSACTION ISOLATION LEVEL READ COMMITTED'));
    }
    await bounded(connection.query('START TRANSACTION'));
    const result = await bounded(work(tx));
    end();
    if (deadlock() !== undefined) throw deadlock();
    committing = true;
    signal('oncebox:transaction:committing', { connectionId: connection.threadId });
    await bounded(connection.query('COMMIT'));
    signal('oncebox:transaction:committed', { connectionId: connection.threadId });
    connection.release();
    return result;
  } catch (error) {
    end();
    // A connection of unknown state must not go back to the pool: its next borrower would inherit locks, or a server that
    // became read-only (mysql2 drops such a connection by itself only for queries made on the pool).
    if (expired || (isFatal(error) && !isUnavailable(error))) await abandon(pool, connection);
    else if (isUnavailable(error)) connection.destroy();
    else {
      await bounded(connection.query('ROLLBACK')).then(
        () => connection.release(),
        () => connection.destroy(),
      );
    }
    if (committing && (isUnavailable(error) || isFatal(error))) {
      throw new DatabaseError(
        'ONCEBOX_COMMIT_UNKNOWN',
        'The connection broke during COMMIT: the work may be committed or not',
        {
          cause: error,
        },
      );
    }
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/**
 * mysql2's own wait for a free connection never ends. It has a deadline of its own, so that one that came late does not meet
 * the attempt's and is destroyed for it, just when connections are short.
 */
async function acquire(pool: Pool, timeoutMs: number): Promise<PoolConnection> {
  const acquired = pool.getConnection();
  const deadline = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    // It keeps its place in the pool's queue; what it is given there goes back at once.
    acquired.then(
      (connection) => connection.release(),
      () => undefined,
    );
    deadline.reject(
      new DatabaseError(
        'ONCEBOX_NO_CONNECTION',
        `The pool had no connection within ${timeoutMs} ms: all of them are in use, or the server does not answer. ` +
          'Make the transactions shorter, or the pool larger.',
      ),
    );
  }, timeoutMs);
  try {
    return await Promise.race([acquired, deadline.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Leaves a connection whose caller has run out of time while the server may be in good health. Destroying it is not enough: a
 * session that waits for a lock, or computes, does not notice and keeps its own locks, in an inbox those of messages that somebody is
 * about to try again. A user may kill sessions of its own. Not waited for long, as the server may be what is slow.
 */
async function abandon(pool: Pool, connection: PoolConnection): Promise<void> {
  connection.destroy();
  const killed = pool.query('KILL ?', [connection.threadId]).catch(() => undefined); // it has ended by itself
  await Promise.race([killed, delay(KILL_MS, undefined, { ref: false })]);
}

const isFatal = (error: unknown): boolean =>
  typeof error === 'object' && error !== null && Reflect.get(error, 'fatal') === true;
