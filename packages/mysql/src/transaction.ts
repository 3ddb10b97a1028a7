import { setTimeout as delay } from 'node:timers/promises';
import type { Pool, PoolConnection } from 'mysql2/promise';
import { abandon, acquire, silence } from './acquire.ts';
import { DatabaseError, isContention, isFatal, isUnavailable } from './errors.ts';
import { handle, type Transaction } from './handle.ts';
import { signal } from './signals.ts';
import { coreOf, isOurs, type Statements, statementsOn } from './transaction-statements.ts';

/** For the release of named locks. */
const RELEASE_MS = 1_000;
/**
 * For the beginning of a transaction, which waits for nothing: a connection that died while it was
 * idle is noticed after that, and not only at the end of a handler's time.
 */
const BEGIN_MS = 5_000;

export interface TransactionOptions {
  /**
   * How often to run the closure in all when the server reports contention (1205, 1213). Default 5.
   */
  readonly attempts?: number;
  /**
   * Milliseconds for one attempt, the commit included; then the connection is destroyed. An attempt
   * may wait as long again for a connection of the pool before it begins. Default 30,000.
   */
  readonly timeoutMs?: number;
}

/**
 * Runs `work` in one READ COMMITTED transaction: commits when it resolves, rolls back and rethrows
 * when it rejects.
 *
 * On a deadlock (1213) or a lock wait timeout (1205) it rolls back everything and runs **the whole
 * closure again**, after a pause with jitter: the first has lost the transaction and the second a
 * statement of it, so repeating the last statement would commit half of the work. So `work` must
 * have no effect outside the transaction.
 *
 * What commits by itself (DDL, COMMIT, LOCK TABLES) has no place in `work`: it is refused, and the
 * transaction rolled back.
 *
 * @throws DatabaseError ONCEBOX_TRANSACTION_LOST when the transaction ended before its time, by
 *   such a statement, a procedure, or the server (`innodb_rollback_on_timeout`).
 *   ONCEBOX_COMMIT_UNKNOWN when the connection broke while COMMIT was under way: it may have
 *   happened. ONCEBOX_NO_CONNECTION when there was none, for whatever reason: nothing has been done.
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
      if (!isContention(error) || attempt >= attempts) throw error;
      await delay(Math.random() * 20 * 2 ** attempt);
    }
  }
}

async function runOnce<T>(pool: Pool, work: (tx: Transaction) => Promise<T>, timeoutMs: number): Promise<T> {
  const connection = await acquire(pool, timeoutMs);
  const core = coreOf(connection);
  if (core === undefined) throw new Error('mysql2 has given a connection that is none of its own');
  const statements = statementsOn(core, { foreign: false });
  const { tx, end } = handle(statements);
  // A server's `completion_type` may begin another transaction behind the end of this one, or close
  // the session. Asked at the end: a new connection takes its settings only before its first
  // statement.
  const andNoMore = (): string => (isOurs(statements) ? '' : ' AND NO CHAIN NO RELEASE');
  const deadline = Promise.withResolvers<never>();
  deadline.promise.catch(() => undefined);
  let expired = false;
  const expire = (what: string, ms: number): void => {
    expired = true;
    deadline.reject(silence(what, ms));
  };
  const timer = setTimeout(() => expire('The transaction did not end', timeoutMs), timeoutMs);
  const beginning = setTimeout(() => expire('The transaction did not begin', BEGIN_MS), BEGIN_MS);
  const bounded = <R>(promise: Promise<R>): Promise<R> => Promise.race([promise, deadline.promise]);
  let committing = false;
  try {
    if (!isOurs(statements)) {
      // SET TRANSACTION is for the next transaction only; SET SESSION would leak to the
      // connection's next borrower.
      await bounded(connection.query('SET TRANSACTION ISOLATION LEVEL READ COMMITTED'));
    }
    await bounded(connection.query('START TRANSACTION'));
    clearTimeout(beginning);
    const result = await bounded(work(tx));
    end();
    await bounded(statements.assertOpen());
    committing = true;
    signal('oncebox:transaction:committing', { connectionId: connection.threadId });
    await bounded(connection.query(`COMMIT${andNoMore()}`));
    signal('oncebox:transaction:committed', { connectionId: connection.threadId });
    await giveBack(connection, statements);
    return result;
  } catch (error) {
    end();
    statements.close();
    // A connection of unknown state must not go back to the pool: its next borrower would inherit
    // locks, or a server that became read-only (mysql2 drops such a connection by itself only for
    // queries made on the pool).
    if (expired || (isFatal(error) && !isUnavailable(error))) await abandon(pool, connection);
    else if (isUnavailable(error)) connection.destroy();
    else {
      await bounded(connection.query(`ROLLBACK${andNoMore()}`)).then(
        () => giveBack(connection, statements),
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
    // The work may have caught it and thrown something else; but what it wrote may be committed,
    // which the caller must learn.
    throw statements.lost !== undefined && !isContention(statements.lost) ? statements.lost : error;
  } finally {
    clearTimeout(beginning);
    clearTimeout(timer);
  }
}

/**
 * Gives a connection back as the next borrower expects it: a pool resets no session. What the work
 * has set ends with the session, and named locks are released.
 */
async function giveBack(connection: PoolConnection, { leftovers }: Statements): Promise<void> {
  if (leftovers === 'settings') connection.destroy();
  else if (leftovers === 'locks') {
    await connection.query({ sql: 'DO RELEASE_ALL_LOCKS()', timeout: RELEASE_MS }).then(
      () => connection.release(),
      () => connection.destroy(),
    );
  } else connection.release();
}
