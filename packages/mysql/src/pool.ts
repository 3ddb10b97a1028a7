import { createPool as createMysqlPool, type PoolOptions } from 'mysql2';
import type { Pool } from 'mysql2/promise';
import { watchConnections } from './acquire.ts';
import { withDeadlines } from './deadlines.ts';
import { DatabaseError } from './errors.ts';
import { giveOurSessions } from './our-sessions.ts';
import { SESSION_SETTINGS } from './settings.ts';

export interface DatabaseUrl {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: string;
  /** Empty in an administrator's URL, which names no schema. */
  readonly schema: string;
  readonly tls: boolean;
}

/**
 * Reads `mysql://user:password@host:3306/schema`; `mysqls:` or `?tls=true` asks for TLS with a
 * verified certificate.
 *
 * @throws DatabaseError ONCEBOX_INVALID_URL; its message never contains the URL, which holds a
 *   password.
 */
export function parseDatabaseUrl(text: string): DatabaseUrl {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^mysqls?:$/.test(url.protocol) || url.hostname === '') {
    throw new DatabaseError('ONCEBOX_INVALID_URL', 'A database URL must read mysql://user:password@host:port/schema');
  }
  return {
    host: url.hostname,
    port: url.port === '' ? 3306 : Number(url.port),
    user: decode(url.username),
    password: decode(url.password),
    schema: decode(url.pathname.slice(1)),
    tls: url.protocol === 'mysqls:' || url.searchParams.get('tls') === 'true',
  };
}

/**
 * Without the URIError as its cause: nothing that has seen the password should travel with an
 * error.
 */
function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw new DatabaseError(
      'ONCEBOX_INVALID_URL',
      'A database URL has a % that escapes nothing: percent-encode reserved characters in names and passwords (% as %25)',
    );
  }
}

/** How every connection of Oncebox talks to the server. */
export function connectionOptions(text: string): PoolOptions {
  const { host, port, user, password, schema, tls } = parseDatabaseUrl(text);
  return {
    host,
    port,
    user,
    password,
    ...(schema === '' ? {} : { database: schema }),
    ...(tls ? { ssl: { rejectUnauthorized: true } } : {}),
    charset: 'utf8mb4',
    timezone: 'Z',
    supportBigNumbers: true,
    // An object as a parameter would otherwise be expanded into SQL (`a` = 1).
    stringifyObjects: true,
    connectTimeout: 10_000,
    keepAliveInitialDelay: 10_000,
  };
}

export interface PoolSettings {
  /** Most connections at once. */
  readonly connections: number;
  /**
   * Session variables that every connection of this pool has from its first statement on. For the
   * whole pool, because a pool does not reset a session on release: set for one borrower, a
   * variable would leak to the next.
   */
  readonly session?: Readonly<Record<string, number>>;
  /**
   * Milliseconds for a `query` or an `execute` on the pool itself, and as long again for the wait for a connection; then the
   * connection is destroyed and the error is an outage (ETIMEDOUT). The option `timeout` of one statement wins. Default 30,000, as
   * for a transaction.
   */
  readonly statementTimeoutMs?: number;
}

/**
 * A pool of connections to one schema. It opens connections when they are asked for, so that it can
 * be made while the server is away.
 *
 * Its sessions have fixed settings (`SESSION_SETTINGS`) and are READ COMMITTED, which also spares
 * each `transaction()` the round trip that says so. A session that does not take them is not given.
 *
 * Failing to get a connection is ONCEBOX_NO_CONNECTION on every path, with the server's or the
 * network's error as its cause. Nothing waits without a deadline, `end` neither.
 */
export function createPool(
  url: string,
  { connections, session = {}, statementTimeoutMs = 30_000 }: PoolSettings,
): Pool {
  const core = createMysqlPool({ ...connectionOptions(url), connectionLimit: connections, maxIdle: connections });
  const pool = core.promise();
  watchConnections(core, pool);
  giveOurSessions(core, [
    ...SESSION_SETTINGS,
    ...Object.entries(session).map(([name, value]) => `SESSION ${name} = ${value}`),
  ]);
  return withDeadlines(pool, statementTimeoutMs);
}
