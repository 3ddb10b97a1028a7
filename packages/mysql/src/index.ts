export type { Pool } from 'mysql2/promise';
export {
  DatabaseError,
  type DatabaseErrorCode,
  errnoOf,
  isContention,
  isDuplicateKey,
  isUnavailable,
} from './errors.ts';
export { fromConnection } from './from-connection.ts';
export { createPool, type DatabaseUrl, type PoolSettings, parseDatabaseUrl } from './pool.ts';
export { assertTransaction, type Transaction, type TransactionOptions, transaction } from './transaction.ts';
