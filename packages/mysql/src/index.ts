export type { Pool } from 'mysql2/promise';
export { asBytes } from './as-bytes.ts';
export {
  DatabaseError,
  type DatabaseErrorCode,
  errnoOf,
  errorNameOf,
  isContention,
  isDuplicateKey,
  isRefusal,
  isTransactionLost,
  isUnavailable,
  nameAndNumberOf,
} from './errors.ts';
export { fromConnection } from './from-connection.ts';
export type { Transaction } from './handle.ts';
export { insertRow } from './insert.ts';
export { type MigrateOptions, migrate, migrationStatus } from './migrate.ts';
export type { MigrationSet } from './migration-files.ts';
export type { MigrationState, MigrationStatus } from './migration-plan.ts';
export { assertTransaction } from './not-a-transaction.ts';
export { statementsOf, withOwnOptions } from './own-options.ts';
export { createPool, type DatabaseUrl, type PoolSettings, parseDatabaseUrl } from './pool.ts';
export { deleteExpired, type ForgetSettings, keepDeleting, oldestSeconds, type Retained } from './retention.ts';
export { savepoint } from './savepoint.ts';
export { assertSuitable } from './server-check.ts';
export type { OnProgress } from './session.ts';
export type { TransactionSignal, TransactionSignals } from './signals.ts';
export { type TransactionOptions, transaction } from './transaction.ts';
export { type GrantOptions, grantUsers } from './users.ts';
