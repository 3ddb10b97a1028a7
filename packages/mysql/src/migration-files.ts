import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseError } from './errors.ts';
import { type Statement, splitStatements } from './statements.ts';

/** A folder of numbered `.sql` files. A schema can have several, each with its own numbers. */
export interface MigrationSet {
  /** What the ledger knows the set by. It must not change, though the folder may move. */
  readonly name: string;
  readonly folder: string;
}

export interface MigrationFile {
  readonly set: string;
  /** `0001_outbox.sql` */
  readonly name: string;
  /** For messages to a person: the folder and the name. */
  readonly path: string;
  readonly statements: readonly Statement[];
  /** SHA-256 in hex of the whole file. */
  readonly checksum: string;
  /** SHA-256 in hex of the file up to and with its first `count` statements. */
  readonly checksumOf: (count: number) => string;
}

const FILE_NAME = /^\d{4}_[a-z0-9_]+\.sql$/;

/**
 * Reads a set, in the order of its numbers. Line endings do not count in a checksum: git may change them on checkout.
 *
 * @throws DatabaseError ONCEBOX_MIGRATION_INVALID when the folder is absent or empty, a name is not `0001_what_it_does.sql`, two
 *   files have one number, or a file does not split into statements.
 */
export function readMigrations({ name: set, folder }: MigrationSet): readonly MigrationFile[] {
  if (!existsSync(folder)) throw invalid(folder, 'there is no such folder');
  const names = readdirSync(folder)
    .filter((name) => name.endsWith('.sql'))
    .sort();
  if (names.length === 0) throw invalid(folder, 'it holds no .sql file');
  for (const [index, name] of names.entries()) {
    const path = join(folder, name);
    if (!FILE_NAME.test(name)) throw invalid(path, 'its name must read 0001_what_it_does.sql (a-z, 0-9 and _)');
    const previous = names[index - 1];
    if (previous?.slice(0, 4) === name.slice(0, 4)) throw invalid(path, `${previous} has the same number`);
  }
  return names.map((name) => parseMigration(set, name, join(folder, name), readFileSync(join(folder, name), 'utf8')));
}

/** @throws DatabaseError ONCEBOX_MIGRATION_INVALID */
export function parseMigration(set: string, name: string, path: string, text: string): MigrationFile {
  const source = text.replace(/^\uFEFF/, '').replace(/\r\n?/g, '\n');
  const statements = split(source, path);
  return {
    set,
    name,
    path,
    statements,
    checksum: sha256(source),
    checksumOf: (count) => sha256(source.slice(0, statements[count - 1]?.end ?? 0)),
  };
}

function split(source: string, path: string): readonly Statement[] {
  let statements: readonly Statement[];
  try {
    statements = splitStatements(source);
  } catch (error) {
    throw error instanceof DatabaseError ? invalid(path, error.message) : error;
  }
  if (statements.length === 0) throw invalid(path, 'it holds no statement');
  return statements;
}

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

const invalid = (path: string, why: string): DatabaseError =>
  new DatabaseError('ONCEBOX_MIGRATION_INVALID', `${path}: ${why}`);
