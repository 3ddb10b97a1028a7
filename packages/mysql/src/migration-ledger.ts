import { type Connection, escapeId, type RowDataPacket } from 'mysql2/promise';
import { errnoOf } from './errors.ts';

/** A row of `schema_migrations`. */
export interface LedgerEntry {
  readonly set_name: string;
  readonly name: string;
  /** Of the whole file once it has finished; until then, of the file up to its last completed statement. */
  readonly checksum: string;
  /** Statements that took effect. */
  readonly completed: number;
  /** Above `completed` while a statement is under way, and for good when the run ended before it knew the outcome. */
  readonly begun: number;
  readonly finished: boolean;
}

type LedgerRow = Omit<LedgerEntry, 'finished'> & { readonly applied_at: Date | null };

const CREATE_LEDGER = `
  CREATE TABLE IF NOT EXISTS schema_migrations (
    set_name VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    name VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    checksum CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    begun INT UNSIGNED NOT NULL,
    completed INT UNSIGNED NOT NULL,
    applied_at DATETIME(6) NULL,
    PRIMARY KEY (set_name, name),
    CONSTRAINT schema_migrations_order CHECK (completed <= begun)
  ) ENGINE = InnoDB`;

/** In the session's default schema. */
export async function createLedger(connection: Connection): Promise<void> {
  await connection.query(CREATE_LEDGER);
}

/** @returns nothing for a schema without a ledger, or one that does not exist. */
export async function readLedger(connection: Connection, schema: string): Promise<readonly LedgerEntry[]> {
  try {
    const [rows] = await connection.query<(RowDataPacket & LedgerRow)[]>(
      `SELECT set_name, name, checksum, begun, completed, applied_at
       FROM ${escapeId(schema, true)}.schema_migrations ORDER BY set_name, name`,
    );
    return rows.map(({ applied_at, ...row }) => ({ ...row, finished: applied_at !== null }));
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 1049 || errno === 1146) return [];
    throw error;
  }
}
