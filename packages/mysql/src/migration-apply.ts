import type { Connection } from 'mysql2/promise';
import { DatabaseError, errnoOf, errorNameOf, quotesData } from './errors.ts';
import type { MigrationFile } from './migration-files.ts';
import type { Statement } from './statements.ts';

/**
 * Runs what is left of a file, on a session whose default schema is the one to migrate.
 *
 * @throws DatabaseError ONCEBOX_MIGRATION_FAILED
 */
export async function applyMigration(connection: Connection, file: MigrationFile, completed: number): Promise<void> {
  await connection.query(
    'INSERT INTO schema_migrations (set_name, name, checksum, begun, completed) VALUES (?, ?, ?, 0, 0) ON DUPLICATE KEY UPDATE name = name',
    [file.set, file.name, file.checksumOf(0)],
  );
  for (const [index, statement] of file.statements.entries()) {
    if (index < completed) continue;
    try {
      if (statement.commitsItself) await runSchemaStatement(connection, file, statement, index);
      else await runDataStatement(connection, file, statement, index);
    } catch (error) {
      throw failed(file, statement, index, error);
    }
  }
  await connection.query(
    'UPDATE schema_migrations SET checksum = ?, applied_at = UTC_TIMESTAMP(6) WHERE set_name = ? AND name = ?',
    [file.checksum, file.set, file.name],
  );
}

/**
 * Marked before and after, so that a run that dies in between leaves the doubt in the ledger instead of guessing. A refusal
 * leaves none: both servers undo a DDL statement that they refuse.
 */
async function runSchemaStatement(
  connection: Connection,
  file: MigrationFile,
  statement: Statement,
  index: number,
): Promise<void> {
  const begun = 'UPDATE schema_migrations SET begun = ? WHERE set_name = ? AND name = ?';
  await connection.query(begun, [index + 1, file.set, file.name]);
  try {
    await connection.query(statement.text);
  } catch (error) {
    if (errnoOf(error) !== undefined) await connection.query(begun, [index, file.set, file.name]);
    throw error;
  }
  await markCompleted(connection, file, index + 1);
}

/** In one transaction with the ledger: there is no doubt to mark. */
async function runDataStatement(
  connection: Connection,
  file: MigrationFile,
  statement: Statement,
  index: number,
): Promise<void> {
  await connection.query('START TRANSACTION');
  try {
    await connection.query(statement.text);
    await markCompleted(connection, file, index + 1);
    await connection.query('COMMIT');
  } catch (error) {
    // A session that is gone needs no rollback, and the error that counts is the first.
    await connection.query('ROLLBACK').catch(() => undefined);
    throw error;
  }
}

async function markCompleted(connection: Connection, file: MigrationFile, count: number): Promise<void> {
  await connection.query(
    'UPDATE schema_migrations SET begun = ?, completed = ?, checksum = ? WHERE set_name = ? AND name = ?',
    [count, count, file.checksumOf(count), file.set, file.name],
  );
}

function failed(file: MigrationFile, statement: Statement, index: number, error: unknown): DatabaseError {
  const where = `${file.path}: statement ${index + 1} of ${file.statements.length} (line ${statement.line})`;
  if (errnoOf(error) === undefined) {
    return new DatabaseError('ONCEBOX_MIGRATION_FAILED', `${where}: the connection broke. Run this again.`, {
      cause: error,
    });
  }
  // A complaint about data quotes it, and whoever reads a log need not know a customer's address.
  const why = quotesData(error) ? errorNameOf(error) : error instanceof Error ? error.message : String(error);
  return new DatabaseError(
    'ONCEBOX_MIGRATION_FAILED',
    `${where} failed: ${why}. What stands before it is applied. Correct this statement or its cause and run this again.`,
  );
}
