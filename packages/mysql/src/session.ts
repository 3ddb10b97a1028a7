import { setTimeout as delay } from 'node:timers/promises';
import { type Connection, createConnection } from 'mysql2/promise';
import { cut, silence } from './acquire.ts';
import { DatabaseError, errorNameOf, isUnavailable } from './errors.ts';
import { connectionOptions } from './pool.ts';
import { SESSION_SETTINGS } from './settings.ts';

/** Told a line about what goes on, for a person who waits; it never holds a password. */
export type OnProgress = (line: string) => void;

const PATIENCE_MS = 60_000;
/** For one statement: an ALTER of a large table takes its time. A network that is silent ends sooner, by TCP's keepalive. */
const STATEMENT_MS = 6 * 3_600_000;
const END_MS = 2_000;

/**
 * Runs `work` on an administrator's session of its own, without a default schema, and closes it. A
 * server that is not there yet is waited for, 60 s.
 *
 * @throws DatabaseError ONCEBOX_DATABASE_AWAY when no server answers in that time.
 */
export async function withAdministrator<T>(
  url: string,
  onProgress: OnProgress,
  work: (connection: Connection) => Promise<T>,
): Promise<T> {
  const connection = await connect(url, onProgress);
  try {
    // One mode and one charset, whatever the server's: the same file must mean the same everywhere,
    // its quotes and backslashes too. The timeout is for table locks. The default is a day or a
    // year, and while an ALTER waits for one long transaction, everybody else's queries on the
    // table wait behind the ALTER.
    await connection.query(
      `SET ${SESSION_SETTINGS.join(', ')}, SESSION sql_mode = 'TRADITIONAL', SESSION lock_wait_timeout = 30`,
    );
    const result = await work(connection);
    await Promise.race([connection.end(), delay(END_MS, undefined, { ref: false })]);
    return result;
  } finally {
    // No farewell on a session that may be what failed: it could wait for an answer for ever.
    cut(connection);
  }
}

function withDeadline(connection: Connection): Connection {
  const query = connection.query.bind(connection);
  const bounded = async (...given: Parameters<typeof query>): Promise<unknown> => {
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      cut(connection);
      late.reject(silence('The statement was not answered', STATEMENT_MS));
    }, STATEMENT_MS);
    try {
      return await Promise.race([query(...given), late.promise]);
    } finally {
      clearTimeout(timer);
    }
  };
  return Object.assign(connection, { query: bounded });
}

async function connect(url: string, onProgress: OnProgress): Promise<Connection> {
  const options = connectionOptions(url);
  const { host, port } = options;
  delete options.database; // it may not exist yet
  const deadline = Date.now() + PATIENCE_MS;
  for (let told = false; ; told = true) {
    try {
      const connection = await createConnection(options);
      // A session that breaks between two statements shows in the second; without a listener it
      // ends the process.
      connection.on('error', () => undefined);
      return withDeadline(connection);
    } catch (error) {
      if (!isUnavailable(error)) throw error;
      const reason = errorNameOf(error) ?? 'no reason given';
      if (Date.now() > deadline) {
        throw new DatabaseError(
          'ONCEBOX_DATABASE_AWAY',
          `No database answers at ${host}:${port} (${reason}) after ${PATIENCE_MS / 1_000} s`,
          { cause: error },
        );
      }
      if (!told) onProgress(`waiting for the database at ${host}:${port} (${reason})`);
      await delay(500);
    }
  }
}
