import { types } from 'node:util';

/** Stable codes of this package; each has a line in docs/errors.md. */
export type DatabaseErrorCode =
  | 'ONCEBOX_NOT_A_TRANSACTION'
  | 'ONCEBOX_NO_TRANSACTION_BEGUN'
  | 'ONCEBOX_TRANSACTION_LOST'
  | 'ONCEBOX_SAVEPOINT_OPEN'
  | 'ONCEBOX_UNSUITABLE_CONNECTION'
  | 'ONCEBOX_UNSUITABLE_SERVER'
  | 'ONCEBOX_COMMIT_UNKNOWN'
  | 'ONCEBOX_NO_CONNECTION'
  | 'ONCEBOX_INVALID_URL'
  | 'ONCEBOX_MIGRATION_EDITED'
  | 'ONCEBOX_MIGRATION_MISSING'
  | 'ONCEBOX_MIGRATION_HALF_APPLIED'
  | 'ONCEBOX_MIGRATION_INVALID'
  | 'ONCEBOX_MIGRATION_OUT_OF_ORDER'
  | 'ONCEBOX_MIGRATION_FAILED'
  | 'ONCEBOX_MIGRATION_LOCKED'
  | 'ONCEBOX_GRANT_FAILED'
  | 'ONCEBOX_DATABASE_AWAY';

/**
 * As @oncebox/message knows an error whose message may be written down: a log then says which error
 * the server gave.
 */
const QUOTES_NO_DATA = Symbol.for('oncebox.quotes-no-data');

export class DatabaseError extends Error {
  override readonly name = 'DatabaseError';
  readonly code: DatabaseErrorCode;

  get [QUOTES_NO_DATA](): boolean {
    return this.code === 'ONCEBOX_NO_CONNECTION';
  }

  constructor(code: DatabaseErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/**
 * A field of whatever was thrown, which may be anything: undefined where reading it throws, or the
 * catch that asks would leave its connection with an open transaction. A Proxy has none, so that
 * one which answers every field is no error of the server's.
 */
function field(error: unknown, name: 'code' | 'errno' | 'sqlState' | 'fatal' | 'message' | 'cause'): unknown {
  try {
    return typeof error === 'object' && error !== null && !types.isProxy(error) ? Reflect.get(error, name) : undefined;
  } catch {
    return undefined;
  }
}

/** The server's error number, or undefined for an error that is not the server's. */
export const errnoOf = (error: unknown): number | undefined => {
  const errno = field(error, 'errno');
  return typeof errno === 'number' && errno > 0 ? errno : undefined;
};

/** The name of the error, the server's (`ER_DUP_ENTRY`) or the network's (`ECONNREFUSED`). */
export const errorNameOf = (error: unknown): string | undefined => {
  const code = field(error, 'code');
  return typeof code === 'string' ? code : undefined;
};

/**
 * An error without its message, which may quote data: `ER_ACCESS_DENIED_ERROR (1045)`,
 * `ECONNREFUSED`. With the number, because the driver has no name for those of newer servers.
 */
export function nameAndNumberOf(error: unknown): string | undefined {
  const name = errorNameOf(error);
  const errno = errnoOf(error);
  if (errno === undefined) return name;
  return name === undefined ? `error ${errno}` : `${name} (${errno})`;
}

/**
 * The server refused a value, and its message quotes it: SQLSTATE 22 and 23, and 1366, which
 * belongs to neither.
 */
export const quotesData = (error: unknown): boolean => {
  const state = field(error, 'sqlState');
  return errnoOf(error) === 1366 || (typeof state === 'string' && /^2[23]/.test(state));
};

/** A row with this unique key exists. */
export const isDuplicateKey = (error: unknown): boolean => errnoOf(error) === 1062;

/**
 * Contention, the one class of error that a fresh attempt cures: 1213 (deadlock; the server has
 * rolled everything back) and 1205 (lock wait timeout; it has rolled back the statement alone, so
 * the caller must roll back the rest). Also the ONCEBOX_TRANSACTION_LOST that follows when one of
 * these was caught and the work went on.
 */
export const isContention = (error: unknown): boolean => {
  const errno = errnoOf(field(error, 'code') === 'ONCEBOX_TRANSACTION_LOST' ? field(error, 'cause') : error);
  return errno === 1213 || errno === 1205;
};

/** After it the connection cannot be used, as the driver says. */
export const isFatal = (error: unknown): boolean => field(error, 'fatal') === true;

/**
 * A deadlock has ended the transaction, and its error was caught. By the code: a process may have
 * two copies of this package.
 */
export const isTransactionLost = (error: unknown): boolean => field(error, 'code') === 'ONCEBOX_TRANSACTION_LOST';

/**
 * Shutdown, a killed connection or statement, a network error that the server saw, idle timeout.
 */
const UNAVAILABLE_ERRNOS: ReadonlySet<number> = new Set([
  1053, 1077, 1152, 1158, 1159, 1160, 1161, 1317, 1927, 2006, 2013, 3168, 3169, 4031,
]);

/**
 * The server answers, and is in no state to do what it is asked, whoever asks.
 *
 * Full or out of files, memory or threads: 1, 3, 5, 20 and 23 (of the file system, for temporary
 * files), 1021, 1026, 1030, 1037, 1041, 1114, 1135, 1637, 3675. Commit or rollback failed: 1180,
 * 1181. Read-only, locked or offline: 1036, 1223, 1290, 1792, 1836, 1874, 3032. Part of a cluster
 *   that does not take writes: 1047 (Galera), 3100 and 3101 (Group Replication). A limit of the
 *   user or the server: 1040, 1203, 1226, 1461. The user's password has expired: 1820.
 */
const REFUSING_ERRNOS: ReadonlySet<number> = new Set([
  1, 3, 5, 20, 23, 1021, 1026, 1030, 1036, 1037, 1040, 1041, 1047, 1114, 1135, 1180, 1181, 1203, 1223, 1226, 1290, 1461,
  1637, 1792, 1820, 1836, 1874, 3032, 3100, 3101, 3675,
]);
const UNAVAILABLE_CODES: ReadonlySet<unknown> = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ECONNABORTED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EPIPE',
  'ETIMEDOUT',
  'PROTOCOL_CONNECTION_LOST',
  'PROTOCOL_SEQUENCE_TIMEOUT',
  'PROTOCOL_ENQUEUE_AFTER_FATAL_ERROR',
  'PROTOCOL_ENQUEUE_AFTER_QUIT',
  'POOL_CLOSED',
]);

/**
 * Of the outages, those for which no message may pay, however long they last: the work was not
 * begun for want of a connection, or the server says of itself that it cannot go on. Not a
 * connection that broke, which the work may have done.
 */
export function isRefusal(error: unknown): boolean {
  const errno = errnoOf(error);
  const code = field(error, 'code');
  // What a server answers to COMMIT is the cause.
  if (code === 'ONCEBOX_COMMIT_UNKNOWN') return isRefusal(field(error, 'cause'));
  if (errno === undefined) return code === 'ONCEBOX_NO_CONNECTION';
  // Others give their errors small numbers, too.
  return REFUSING_ERRNOS.has(errno) && (errno > 1000 || typeof field(error, 'sqlState') === 'string');
}

/**
 * The database is away, takes no writes or has no connection to spare: an outage, not a fault of
 * the work that met it. Ours are known by their code, and not by their class, of which a process
 * may have two copies.
 */
export function isUnavailable(error: unknown): boolean {
  const code = field(error, 'code');
  if (typeof code === 'string' && code.startsWith('ONCEBOX_')) {
    return code === 'ONCEBOX_COMMIT_UNKNOWN' || code === 'ONCEBOX_NO_CONNECTION';
  }
  const errno = errnoOf(error);
  if (isRefusal(error) || (errno !== undefined && UNAVAILABLE_ERRNOS.has(errno))) return true;
  if (UNAVAILABLE_CODES.has(code)) return true;
  // mysql2 gives these two no code of their own.
  const message = types.isNativeError(error) ? field(error, 'message') : undefined;
  return typeof message === 'string' && /closed state|Queue limit reached|Pool is closed/.test(message);
}
