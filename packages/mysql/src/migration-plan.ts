import { DatabaseError } from './errors.ts';
import type { MigrationFile } from './migration-files.ts';
import type { LedgerEntry } from './migration-ledger.ts';

export type MigrationState = 'applied' | 'pending' | 'half-applied' | 'edited' | 'missing' | 'out-of-order';

export interface MigrationStatus {
  readonly set: string;
  readonly name: string;
  readonly state: MigrationState;
  /** Why a run refuses to go on; it says what to do. */
  readonly problem?: DatabaseError;
}

export interface PlannedMigration extends MigrationStatus {
  /** Absent for a migration that is missing. */
  readonly file?: MigrationFile;
  /** Statements that took effect already. */
  readonly completed: number;
}

/** Compares what is on disk with what the schema has had, in the order in which a run would go through it. */
export function planMigrations(
  schema: string,
  sets: ReadonlyMap<string, readonly MigrationFile[]>,
  ledger: readonly LedgerEntry[],
): readonly PlannedMigration[] {
  return [...sets].flatMap(([set, files]) => {
    const entries = ledger.filter((entry) => entry.set_name === set);
    const missing = entries.filter((entry) => !files.some((file) => file.name === entry.name));
    const last = entries
      .map((entry) => entry.name)
      .sort()
      .at(-1);
    return [
      ...missing.map((entry) => missingMigration(schema, entry)),
      ...files.map((file) => {
        const entry = entries.find(({ name }) => name === file.name);
        return entry === undefined ? newMigration(schema, file, last) : knownMigration(schema, file, entry);
      }),
    ];
  });
}

function missingMigration(schema: string, { set_name: set, name, completed }: LedgerEntry): PlannedMigration {
  const problem = new DatabaseError(
    'ONCEBOX_MIGRATION_MISSING',
    `${set}/${name} has been applied to ${schema} and is not on disk. Restore it, or run a release that has it.`,
  );
  return { set, name, state: 'missing', completed, problem };
}

function newMigration(schema: string, file: MigrationFile, last: string | undefined): PlannedMigration {
  const { set, name } = file;
  if (last === undefined || name > last) return { set, name, file, state: 'pending', completed: 0 };
  const problem = new DatabaseError(
    'ONCEBOX_MIGRATION_OUT_OF_ORDER',
    `${file.path} is new, but ${schema} is at ${last} already: it would come last here and earlier elsewhere. ` +
      'Give it a number above all others.',
  );
  return { set, name, file, state: 'out-of-order', completed: 0, problem };
}

function knownMigration(schema: string, file: MigrationFile, entry: LedgerEntry): PlannedMigration {
  const { set, name } = file;
  const { completed } = entry;
  const unchanged = entry.checksum === (entry.finished ? file.checksum : file.checksumOf(completed));
  if (!unchanged) {
    const problem = new DatabaseError(
      'ONCEBOX_MIGRATION_EDITED',
      entry.finished
        ? `${file.path} has been applied to ${schema} and was edited since. Restore it, and put the change into a new file.`
        : `${file.path}: the first ${completed} statements have been applied to ${schema} and were edited since. ` +
            'Restore them; only what follows may change.',
    );
    return { set, name, file, state: 'edited', completed, problem };
  }
  if (entry.finished) return { set, name, file, state: 'applied', completed };
  const problem = entry.begun > completed ? unknownOutcome(schema, file, completed) : undefined;
  return { set, name, file, state: 'half-applied', completed, ...(problem === undefined ? {} : { problem }) };
}

function unknownOutcome(schema: string, file: MigrationFile, completed: number): DatabaseError {
  const doubtful = file.statements[completed];
  const update = (assignments: string) =>
    `UPDATE \`${schema}\`.schema_migrations SET ${assignments} WHERE set_name = '${file.set}' AND name = '${file.name}';`;
  return new DatabaseError(
    'ONCEBOX_MIGRATION_HALF_APPLIED',
    `${file.path}: a run ended while statement ${completed + 1} of ${file.statements.length} was under way ` +
      `(line ${doubtful?.line}: ${doubtful?.text.split('\n')[0]}), and nothing tells whether it took effect. ` +
      `Look at the schema. If it did:\n  ${update(`completed = ${completed + 1}, checksum = '${file.checksumOf(completed + 1)}'`)}\n` +
      `If it did not:\n  ${update(`begun = ${completed}`)}\nThen run this again: it goes on from there.`,
  );
}
