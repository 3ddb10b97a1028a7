import { createHash } from 'node:crypto';
import { type Connection, escapeId, type RowDataPacket } from 'mysql2/promise';
import { DatabaseError } from './errors.ts';
import { applyMigration } from './migration-apply.ts';
import { type MigrationFile, type MigrationSet, readMigrations } from './migration-files.ts';
import { createLedger, readLedger } from './migration-ledger.ts';
import { type MigrationStatus, type PlannedMigration, planMigrations } from './migration-plan.ts';
import { type OnProgress, withAdministrator } from './session.ts';

export interface MigrateOptions {
  /** Created, in utf8mb4, when it does not exist. */
  readonly schema: string;
  /** Applied in this order. */
  readonly sets: readonly MigrationSet[];
  readonly onProgress?: OnProgress;
  /** How long to wait for another run on the same schema. Default 60. */
  readonly lockTimeoutSeconds?: number;
}

/**
 * Brings a schema up to date, and refuses before it touches anything when what is on disk contradicts what the schema has had.
 *
 * One run at a time per schema and server: a second one waits, then finds nothing to do. (Against a cluster that takes writes
 * on several servers, always run on the same one: the lock is known to one server only.)
 *
 * DDL commits by itself, so a file is no unit that could be rolled back. The ledger, `schema_migrations` in the schema itself,
 * counts statements: a run goes on behind the last one that took effect. What follows it may be edited by then, which is how a
 * statement that the server refused is put right.
 *
 * @param administratorUrl may create schemas, or at least everything in this one; a schema in it is ignored.
 * @returns what it applied, as `messaging/0001_outbox.sql`.
 * @throws DatabaseError ONCEBOX_MIGRATION_INVALID, _EDITED, _MISSING, _OUT_OF_ORDER, _HALF_APPLIED, _FAILED, _LOCKED; each says which
 *   file and what to do. ONCEBOX_DATABASE_AWAY when no server answers within 60 s.
 */
export async function migrate(
  administratorUrl: string,
  { schema, sets, onProgress = () => undefined, lockTimeoutSeconds = 60 }: MigrateOptions,
): Promise<readonly string[]> {
  const files = readSets(sets);
  return withAdministrator(administratorUrl, onProgress, (connection) =>
    alone(connection, schema, lockTimeoutSeconds, onProgress, async () => {
      await createSchema(connection, schema);
      await connection.query(`USE ${escapeId(schema, true)}`);
      await createLedger(connection);
      const plan = planMigrations(schema, files, await readLedger(connection, schema));
      for (const { problem } of plan) if (problem !== undefined) throw problem;

      const applied: string[] = [];
      for (const { file, state, completed } of plan) {
        if (file === undefined || state === 'applied') continue;
        const started = performance.now();
        await applyMigration(connection, file, completed);
        applied.push(`${file.set}/${file.name}`);
        const from = completed === 0 ? '' : ` from statement ${completed + 1} on`;
        onProgress(
          `${schema}: applied ${file.set}/${file.name}${from} (${Math.round(performance.now() - started)} ms)`,
        );
      }
      if (applied.length === 0) onProgress(`${schema}: nothing to do`);
      return applied;
    }),
  );
}

/** What a run would find. Changes nothing, takes no lock; a schema that does not exist yet has everything pending. */
export async function migrationStatus(
  administratorUrl: string,
  { schema, sets, onProgress = () => undefined }: Omit<MigrateOptions, 'lockTimeoutSeconds'>,
): Promise<readonly MigrationStatus[]> {
  const files = readSets(sets);
  const ledger = await withAdministrator(administratorUrl, onProgress, (connection) => readLedger(connection, schema));
  return planMigrations(schema, files, ledger).map(toStatus);
}

const toStatus = ({ set, name, state, problem }: PlannedMigration): MigrationStatus =>
  problem === undefined ? { set, name, state } : { set, name, state, problem };

const readSets = (sets: readonly MigrationSet[]): ReadonlyMap<string, readonly MigrationFile[]> =>
  new Map(sets.map((set) => [set.name, readMigrations(set)]));

/** Only when it is absent: MySQL's IF NOT EXISTS wants the whole schema to itself first, and waits for every table lock in it. */
async function createSchema(connection: Connection, schema: string): Promise<void> {
  const [found] = await connection.query<RowDataPacket[]>(
    'SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = ?',
    [schema],
  );
  if (found.length === 0) await connection.query(`CREATE DATABASE ${escapeId(schema, true)} CHARACTER SET utf8mb4`);
}

/** Holds the schema's lock while `work` runs. The server frees it by itself when the session ends, however it ends. */
async function alone<T>(
  connection: Connection,
  schema: string,
  timeoutSeconds: number,
  onProgress: OnProgress,
  work: () => Promise<T>,
): Promise<T> {
  // Names are the whole server's and have at most 64 characters, as many as a schema's own name may have; hence the digest.
  const lock = `oncebox:migrate:${createHash('sha256').update(schema).digest('hex').slice(0, 32)}`;
  const locked = async (seconds: number): Promise<boolean> => {
    const [rows] = await connection.query<RowDataPacket[]>('SELECT GET_LOCK(?, ?) AS got', [lock, seconds]);
    return rows[0]?.['got'] === 1;
  };
  if (!(await locked(0))) {
    onProgress(`${schema}: another migration is under way; waiting for it, ${timeoutSeconds} s at most`);
    if (!(await locked(timeoutSeconds))) {
      throw new DatabaseError(
        'ONCEBOX_MIGRATION_LOCKED',
        `Another migration of ${schema} has not ended within ${timeoutSeconds} s. Run this again when it has; if none is left, ` +
          `its session still is: SELECT IS_USED_LOCK('${lock}') tells its id.`,
      );
    }
  }
  try {
    return await work();
  } finally {
    // Before the session closes, which the server notices a little later. Should it be gone already, so is the lock.
    await connection.query('DO RELEASE_LOCK(?)', [lock]).catch(() => undefined);
  }
}
