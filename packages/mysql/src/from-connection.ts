import type { Connection as CallbackConnection } from 'mysql2';
import type { Connection, ResultSetHeader } from 'mysql2/promise';
import { DatabaseError } from './errors.ts';
import { handle, type Transaction } from './transaction.ts';

const SERVER_STATUS_IN_TRANS = 1;
const SERVER_STATUS_AUTOCOMMIT = 2;

/**
 * A transaction handle of a mysql2 connection on which the caller's own library (Knex, Kysely, Drizzle, TypeORM …) has begun a
 * transaction. The caller commits or rolls back as ever; this neither begins nor ends anything.
 *
 * @param connection mysql2's, of either flavour: promises or callbacks.
 * @throws DatabaseError ONCEBOX_NOT_A_TRANSACTION for a pool; ONCEBOX_NO_TRANSACTION_BEGUN when the server says that no
 *   transaction is open, where an outbox row would be committed by itself.
 */
export async function fromConnection(connection: Connection | CallbackConnection): Promise<Transaction> {
  if ('getConnection' in connection) {
    throw new DatabaseError(
      'ONCEBOX_NOT_A_TRANSACTION',
      'fromConnection() got a pool: each of its queries may run on another connection. Pass the connection that your transaction runs on.',
    );
  }
  const promised: Connection = isCallbackConnection(connection) ? connection.promise() : connection;
  const [{ serverStatus }] = await promised.query<ResultSetHeader>('DO 0');
  const begun = (serverStatus & SERVER_STATUS_IN_TRANS) !== 0 || (serverStatus & SERVER_STATUS_AUTOCOMMIT) === 0;
  if (!begun) {
    throw new DatabaseError(
      'ONCEBOX_NO_TRANSACTION_BEGUN',
      'fromConnection() got a connection without an open transaction: begin one first, or use transaction(pool, work).',
    );
  }
  return handle(promised).tx;
}

function isCallbackConnection(connection: Connection | CallbackConnection): connection is CallbackConnection {
  return 'promise' in connection && typeof connection.promise === 'function';
}
