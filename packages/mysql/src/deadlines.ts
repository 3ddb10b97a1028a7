import { setTimeout as delay } from 'node:timers/promises';
import type { Pool } from 'mysql2/promise';
import { cutAll, onConnection } from './acquire.ts';
import type { Method } from './transaction-statements.ts';

/** For the farewell of all connections, and for what is still under way on them. */
const END_MS = 2_000;

/**
 * @internal Gives the pool's own statements a deadline, and its end: on connections that are
 *   silent, the driver would wait for ever.
 */
export function withDeadlines(pool: Pool, statementTimeoutMs: number): Pool {
  const run =
    (method: Method) =>
    async (given: unknown, ...values: readonly unknown[]): Promise<unknown> => {
      const { statement, timeoutMs = statementTimeoutMs } = withoutTimeout(given);
      return await onConnection(
        pool,
        timeoutMs,
        (connection) =>
          // The driver's overloads cannot be spread over; what is passed on is what the caller gave
          // to the same method.
          Reflect.apply(connection[method], connection, [statement, ...values]) as Promise<unknown>,
      );
    };
  const end = pool.end.bind(pool);
  return Object.assign(pool, {
    query: run('query'),
    execute: run('execute'),
    async end() {
      const isEnded = end().then(
        () => true,
        () => false, // one that was still being opened could not be: none is open now
      );
      if (!(await Promise.race([isEnded, delay(END_MS, false, { ref: false })]))) cutAll(pool);
    },
  });
}

/** The driver's own `timeout` would answer first, and keep the connection. */
function withoutTimeout(given: unknown): { readonly statement: unknown; readonly timeoutMs?: number } {
  if (typeof given !== 'object' || given === null || !('timeout' in given)) return { statement: given };
  const { timeout, ...statement } = given;
  return typeof timeout === 'number' ? { statement, timeoutMs: timeout } : { statement };
}
