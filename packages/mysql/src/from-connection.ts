import type { Connection as CallbackConnection } from 'mysql2';
import type { Connection, ResultSetHeader } from 'mysql2/promise';
import { DatabaseError } from './errors.ts';
import { handle, type Transaction } from './handle.ts';
import { notATransaction } from './not-a-transaction.ts';
import { coreOf, isInTransaction, statementsOn } from './transaction-statements.ts';

/**
 * A transaction handle of a mysql2 connection on which the caller's own library (Knex, Kysely,
 * Drizzle, TypeORM …) has begun a transaction. The caller commits or rolls back as ever; this
 * neither begins nor ends anything.
 *
 * Nobody tells the handle when its owner ends the transaction, so it asks before each statement:
 * one round trip more. `outbox.add` cannot commit by itself even if the end comes in between. What
 * is left is in docs/guarantees.md: a connection that went back to its pool and whose next borrower
 * has begun a transaction looks the same from here.
 *
 * @param connection mysql2's, of either flavour: promises or callbacks.
 * @throws DatabaseError ONCEBOX_NOT_A_TRANSACTION for a pool or anything else that is no
 *   connection; ONCEBOX_NO_TRANSACTION_BEGUN when the server says that no transaction is open,
 *   where an outbox row would be committed by itself.
 */
export async function fromConnection(connection: Connection | CallbackConnection): Promise<Transaction> {
  const core = connectionIn(connection);
  if (core === undefined) throw notATransaction('fromConnection()', connection);
  const [{ serverStatus }] = await core.promise().query<ResultSetHeader>('DO 0');
  if (!isInTransaction(serverStatus, true)) {
    throw new DatabaseError(
      'ONCEBOX_NO_TRANSACTION_BEGUN',
      'fromConnection() got a connection without an open transaction: begin one first, or use transaction(pool, work).',
    );
  }
  return handle(statementsOn(core, { foreign: true })).tx;
}

/** Nothing for a pool, and nothing for what throws when it is looked at. */
function connectionIn(value: unknown): CallbackConnection | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  try {
    const core = 'getConnection' in value ? undefined : coreOf(value);
    return core !== undefined && 'threadId' in core ? core : undefined;
  } catch {
    return undefined;
  }
}
