import { DatabaseError, errnoOf } from './errors.ts';
import type { Transaction } from './handle.ts';
import { handleIn } from './not-a-transaction.ts';
import { isOurs, type Statements } from './transaction-statements.ts';

type Value = string | number | null;

/**
 * A character of four bytes: `utf8mb3` and `latin1` have none for it, on whichever side they stand.
 */
const PROBE = '🚚';
/**
 * Another one for each insert: if the values of this one did not arrive, those of the last one must
 * not be taken for them.
 */
let inserts = 0;
const NOT_NULL = 1048;

/**
 * Inserts one row, whose first column is NOT NULL, and which must be part of the transaction or not
 * be at all. Table and columns are names of ours.
 *
 * On a connection of ours it is one prepared statement. On any other, the statement itself inserts
 * NULL, which the server refuses, unless the session writes text as it is given and, for a handle
 * of `fromConnection`, a transaction is open at that very moment.
 *
 * @throws DatabaseError ONCEBOX_NOT_A_TRANSACTION when the owner has ended the transaction: nothing
 *   is written. ONCEBOX_UNSUITABLE_CONNECTION for a connection whose character set would alter
 *   text.
 */
export async function insertRow(tx: Transaction, table: string, row: Readonly<Record<string, Value>>): Promise<void> {
  const { statements } = handleIn('This', tx);
  const columns = Object.keys(row);
  if (isOurs(statements)) {
    const marks = columns.map(() => '?').join(', ');
    await tx.execute(`INSERT INTO ${table} (${columns.join(', ')}) VALUES (${marks})`, Object.values(row));
    return;
  }
  await insertGuarded(statements, table, columns, Object.values(row));
}

/**
 * All statements are given to the connection in one go, so that nothing of its owner, a ROLLBACK
 * that is not awaited, comes between them. Whether a transaction is open no function of SQL tells;
 * but outside of one, to release the savepoint that was just set is an error, and how many errors
 * there were can be read.
 *
 * Values go by user variables: a prepared INSERT would mean the schema in which the session first
 * prepared it.
 */
async function insertGuarded(
  statements: Statements,
  table: string,
  columns: readonly string[],
  values: readonly Value[],
): Promise<void> {
  const { prefix, refusal } = statements;
  if (refusal !== undefined) throw refusal;
  const probe = `${PROBE}${++inserts}`;
  const variables = values.map((_, n) => `@oncebox_${n}`);
  const [first, ...others] = variables;
  const given = ['@oncebox_probe', ...variables].map((each) => `${each} = ?`).join(', ');
  const arrived = `HEX(@oncebox_probe) = '${Buffer.from(probe, 'utf8').toString('hex').toUpperCase()}' AND @@character_set_connection = 'utf8mb4'`;
  const checked: readonly string[] = [`IF(@oncebox_open, ${first}, NULL)`, ...others];
  const outcomes = await statements.inTurn(() =>
    Promise.allSettled([
      // It reads a table, if only a derived one: that is what makes MariaDB forget the errors
      // before.
      statements.send('execute', [
        `SET @oncebox_open = (SELECT 0 FROM (SELECT 0) AS none), ${given}`,
        [probe, ...values],
      ]),
      statements.send('query', [`SAVEPOINT ${prefix}_add`]),
      statements.send('query', [`RELEASE SAVEPOINT ${prefix}_add`]),
      statements.send('query', [`SET @oncebox_open = (@@error_count = 0 AND ${arrived})`]),
      statements.send('query', [`INSERT INTO ${table} (${columns.join(', ')}) VALUES (${checked.join(', ')})`]),
    ]),
  );
  const failures: readonly unknown[] = outcomes.flatMap((each) => (each.status === 'rejected' ? [each.reason] : []));
  const [failure] = failures;
  if (failure === undefined) return;
  if (statements.lost !== undefined) throw statements.lost;
  throw failures.length === 1 && errnoOf(failure) === NOT_NULL ? unsuitable() : failure;
}

const unsuitable = (): DatabaseError =>
  new DatabaseError(
    'ONCEBOX_UNSUITABLE_CONNECTION',
    "The connection of this transaction does not use utf8mb4, which would alter text. Open it with charset: 'utf8mb4'; and where " +
      'init_connect or skip-character-set-client-handshake of the server overrides that, send SET NAMES utf8mb4 on each new connection.',
  );
