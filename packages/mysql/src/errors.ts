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

export class DatabaseError extends Error {
  override readonly name = 'DatabaseError';
  readonly code: DatabaseErrorCode;

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

/** Too many connections, shutdown, killed connection, read-only after a failover, idle timeout. */
const UNAVAILABLE_ERRNOS: ReadonlySet<number> = new Set([
  1040, 1053, 1077, 1152, 1158, 1159, 1160, 1161, 1203, 1290, 1317, 1792, 1836, 1927, 2006, 2013, 3032, 4031,
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
  if (errno !== undefined && UNAVAILABLE_ERRNOS.has(errno)) return true;
  if (UNAVAILABLE_CODES.has(code)) return true;
  // mysql2 gives these two no code of their own.
  const message = types.isNativeError(error) ? field(error, 'message') : undefined;
  return typeof message === 'string' && /closed state|Queue limit reached|Pool is closed/.test(message);
}
