import { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import type { Pool as CorePool, PoolConnection as CorePoolConnection } from 'mysql2';
import type { Connection, Pool, PoolConnection } from 'mysql2/promise';
import { DatabaseError, errorNameOf, isFatal, isUnavailable, nameAndNumberOf } from './errors.ts';
import { coreOf } from './transaction-statements.ts';

const KILL_MS = 1_000;

/**
 * @internal The connection has left its deadline pass: a dead network and a stuck server look alike
 *   from here.
 */
export const silence = (what: string, timeoutMs: number): Error =>
  Object.assign(new Error(`${what} within ${timeoutMs} ms`), { code: 'ETIMEDOUT', fatal: true });

/**
 * @internal Why there is no connection. An outage whatever the number: what the caller wanted to do
 *   has not been tried, so it cannot be at fault.
 */
export function noConnection(cause: unknown): DatabaseError {
  if (cause instanceof DatabaseError && cause.code === 'ONCEBOX_NO_CONNECTION') return cause;
  const why = nameAndNumberOf(cause) ?? 'the driver gives no reason';
  return new DatabaseError('ONCEBOX_NO_CONNECTION', `The database gave no connection: ${why}`, { cause });
}

/**
 * @internal Waits for a free connection, which the driver would do for ever. The wait has a
 *   deadline of its own: if it shared the deadline of the work, a connection that came late would
 *   be destroyed in the middle of the work, just when connections are short.
 */
export async function acquire(pool: Pool, timeoutMs: number): Promise<PoolConnection> {
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
  } catch (error) {
    throw noConnection(error);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * @internal Runs `work` on a connection of the pool. It has `timeoutMs` for the wait for the
 *   connection, and as long again for the work; a connection that leaves that pass is destroyed.
 *   The driver's own `timeout` gives no connection up: with a dead network, each would cost the
 *   pool one.
 */
export async function onConnection<T>(
  pool: Pool,
  timeoutMs: number,
  work: (connection: PoolConnection) => Promise<T>,
): Promise<T> {
  const connection = await acquire(pool, timeoutMs);
  const late = Promise.withResolvers<never>();
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    late.reject(silence('The statement was not answered', timeoutMs));
  }, timeoutMs);
  try {
    const result = await Promise.race([work(connection), late.promise]);
    connection.release();
    return result;
  } catch (error) {
    if (isLate) void abandon(pool, connection);
    // A server that became read-only may have given its name to another one.
    else if (isFatal(error) || isUnavailable(error)) connection.destroy();
    else connection.release();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** The socket of a connection, which mysql2 does not show in its types. */
function socketOf(connection: Connection | CorePoolConnection): Duplex | undefined {
  const core = coreOf(connection);
  const socket: unknown = core === undefined ? undefined : Reflect.get(core, 'stream');
  return socket instanceof Duplex ? socket : undefined;
}

/**
 * @internal Destroys a connection and its socket. mysql2's `destroy` only says that nothing more
 *   comes, and on a network that is silent the socket stays for a quarter of an hour.
 */
export function cut(connection: Connection | CorePoolConnection): void {
  connection.destroy();
  socketOf(connection)?.destroy();
}

interface Known {
  readonly idle: Set<CorePoolConnection>;
  readonly all: Set<CorePoolConnection>;
}
const known = new WeakMap<Pool, Known>();

/** @internal Keeps track of a pool's connections, for `abandon` and `cutAll`. */
export function watchConnections(core: CorePool, pool: Pool): void {
  const own: Known = { idle: new Set(), all: new Set() };
  known.set(pool, own);
  core.on('release', (connection) => void own.idle.add(connection));
  core.on('acquire', (connection) => void own.idle.delete(connection));
  core.on('connection', (connection) => {
    own.all.add(connection);
    socketOf(connection)?.once('close', () => {
      own.all.delete(connection);
      own.idle.delete(connection);
    });
  });
}

/** @internal Destroys every connection of a pool. */
export function cutAll(pool: Pool): void {
  for (const connection of known.get(pool)?.all ?? []) cut(connection);
}

/**
 * @internal Leaves a connection whose caller has run out of time while the server may be in good
 *   health. Destroying it is not enough: a session that waits for a lock, or computes, does not
 *   notice and keeps its own locks, in an inbox those of messages that somebody is about to try
 *   again. A user may kill sessions of its own. Not waited for long, as the server may be what is
 *   slow.
 *
 * The idle connections of a pool of ours go as well: what has made one silent may have met all of
 * them, and each would cost its next borrower a deadline.
 */
export async function abandon(pool: Pool, connection: PoolConnection): Promise<void> {
  cut(connection);
  for (const idle of known.get(pool)?.idle ?? []) cut(idle);
  const killed = kill(pool, connection.threadId).catch(() => undefined); // it has ended by itself
  await Promise.race([killed, delay(KILL_MS, undefined, { ref: false })]);
}

async function kill(pool: Pool, threadId: number): Promise<void> {
  const connection = await acquire(pool, KILL_MS);
  await Promise.race([
    connection.query('KILL ?', [threadId]).then(
      () => connection.release(),
      (error) => (errorNameOf(error) === 'ER_NO_SUCH_THREAD' ? connection.release() : connection.destroy()),
    ),
    delay(KILL_MS, undefined, { ref: false }).then(() => cut(connection)),
  ]);
}
