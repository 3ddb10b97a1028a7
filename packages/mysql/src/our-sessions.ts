import type { Pool as CorePool, PoolConnection as CorePoolConnection } from 'mysql2';
import { cut, noConnection, silence } from './acquire.ts';
import { DatabaseError, errnoOf, isUnavailable } from './errors.ts';
import { haveOurSettings } from './settings.ts';

/** As long as the driver waits for the connection itself. */
const SETTINGS_MS = 10_000;

/**
 * @internal Gives only connections whose sessions have taken the settings, and says of any other,
 *   and of every failure to connect, that it is an outage. At the driver's `getConnection`, through
 *   which all else goes.
 */
export function giveOurSessions(core: CorePool, settings: readonly string[]): void {
  const fresh = new WeakMap<CorePoolConnection, Promise<void>>();
  core.on('connection', (connection) => {
    // Without a listener, an idle session that meets its wait_timeout (4031) ends the process. The
    // pool itself drops such a connection.
    connection.on('error', () => undefined);
    const settled = takeSettings(connection, settings);
    settled.catch(() => undefined); // whoever acquires the connection gets the error
    fresh.set(connection, settled);
  });
  const getConnection = core.getConnection.bind(core);
  core.getConnection = (callback) =>
    getConnection((error, connection) => {
      if (error) return callback(noConnection(error), connection);
      const settled = fresh.get(connection);
      if (settled === undefined) return callback(null, connection);
      fresh.delete(connection);
      settled.then(
        () => callback(null, connection),
        (refusal) => callback(noConnection(refusal), connection),
      );
    });
}

/** A connection runs its statements in the order given, so the second reply is that of both. */
function takeSettings(connection: CorePoolConnection, settings: readonly string[]): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const fail = (error: unknown): void => {
    clearTimeout(timer);
    cut(connection);
    reject(error);
  };
  const timer = setTimeout(() => fail(silence('The session did not take its settings', SETTINGS_MS)), SETTINGS_MS);
  const check = (error: unknown): boolean => {
    if (error === null || error === undefined) return true;
    fail(errnoOf(error) === undefined || isUnavailable(error) ? error : refused(error));
    return false;
  };
  connection.query('SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED', check);
  // Those of the caller come last.
  connection.query(`SET ${settings.join(', ')}`, (error) => {
    if (!check(error)) return;
    clearTimeout(timer);
    haveOurSettings(connection);
    resolve();
  });
  return promise;
}

const refused = (cause: unknown): DatabaseError =>
  new DatabaseError(
    'ONCEBOX_UNSUITABLE_SERVER',
    `The server refused the settings of a session, and no session is used without them: ${cause instanceof Error ? cause.message : ''}`,
    { cause },
  );
