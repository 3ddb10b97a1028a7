import { randomBytes } from 'node:crypto';
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DEAD_LETTERS } from '@oncebox/inbox';
import { createPool, deleteExpired, type MigrateOptions, migrate, migrationStatus, type Pool } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it, onTestFinished, vi } from 'vitest';
import { dropAll } from '../support/schemas.ts';

const { databaseUrl } = inject('servers');
const MESSAGING = join(import.meta.dirname, '../../migrations/messaging');

let admin: Pool;
let root: string;
let schema: string;
let folder: string;

beforeAll(() => {
  admin = createPool(databaseUrl, { connections: 3 });
  root = mkdtempSync(join(tmpdir(), 'oncebox-migrate-'));
});
afterAll(async () => {
  await admin.end();
  rmSync(root, { recursive: true });
});
beforeEach(() => {
  schema = `migrate_${randomBytes(5).toString('hex')}`;
  folder = join(root, schema);
  mkdirSync(folder);
});
afterEach(() => dropAll(databaseUrl, [schema], []));

const write = (name: string, sql: string): void => writeFileSync(join(folder, name), sql);
const run = (options: Partial<MigrateOptions> = {}) =>
  migrate(databaseUrl, { schema, sets: [{ name: 'service', folder }], ...options });
const states = async () =>
  (await migrationStatus(databaseUrl, { schema, sets: [{ name: 'service', folder }] })).map(({ state }) => state);
const coded = (code: string, message?: RegExp) =>
  expect.objectContaining({
    code,
    message: message === undefined ? expect.any(String) : expect.stringMatching(message),
  });

/** Every ALTER of the table waits until the returned function is called. */
async function lockTable(table: string): Promise<() => void> {
  const blocker = await admin.getConnection();
  await blocker.query('LOCK TABLES ??.?? READ', [schema, table]);
  return () => blocker.destroy();
}

async function columns(table: string): Promise<string[]> {
  const [rows] = await admin.query<RowDataPacket[]>(
    'SELECT COLUMN_NAME AS name FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION',
    [schema, table],
  );
  return rows.map((row) => String(row['name']));
}

describe('migrate', () => {
  it('creates the schema in utf8mb4, applies its sets in order, and finds nothing to do the next time', async () => {
    write(
      '0001_a.sql',
      'CREATE TABLE a (id INT PRIMARY KEY); INSERT INTO a SELECT partition_id FROM outbox_partition;',
    );
    write('0002_b.sql', 'ALTER TABLE a ADD COLUMN b INT;');
    const sets = [
      { name: 'messaging', folder: MESSAGING },
      { name: 'service', folder },
    ];
    const applied = await run({ sets });
    expect(applied).toEqual(expect.arrayContaining(['messaging/0001_outbox.sql']));
    expect(applied.slice(-2)).toEqual(['service/0001_a.sql', 'service/0002_b.sql']);
    expect(await columns('a')).toEqual(['id', 'b']);
    const [[created]] = await admin.query<RowDataPacket[]>('SHOW CREATE DATABASE ??', [schema]);
    expect(created?.['Create Database']).toContain('utf8mb4');
    expect(await run({ sets })).toEqual([]);
  });

  it('comes through when a cleaner has put its row into retention before the migration that adds it', async () => {
    const before = readdirSync(MESSAGING).filter((name) => name < '0014');
    for (const name of before) copyFileSync(join(MESSAGING, name), join(folder, name));
    await run({ sets: [{ name: 'messaging', folder }] });
    const pool = createPool(`${databaseUrl.replace(/\/$/, '')}/${schema}`, { connections: 1 });
    onTestFinished(() => pool.end());
    for (const retained of DEAD_LETTERS) await deleteExpired(pool, retained, 1, new AbortController().signal);
    const remembered = async () =>
      (await pool.query<RowDataPacket[]>("SELECT forgotten_before AS f FROM retention WHERE name = 'dead_letters'"))[0];
    const row = await remembered();
    expect(row).toEqual([{ f: expect.anything() }]);
    expect(await run({ sets: [{ name: 'messaging', folder: MESSAGING }] })).toContain(
      'messaging/0014_dead_letters_retention.sql',
    );
    expect(await remembered()).toEqual(row);
  });

  it('applies once when several run at the same time', async () => {
    write('0001_a.sql', 'CREATE TABLE a (id INT AUTO_INCREMENT PRIMARY KEY); INSERT INTO a VALUES (NULL);');
    const runs = await Promise.all([run(), run(), run(), run()]);
    expect(runs.flat()).toEqual(['service/0001_a.sql']);
    const [rows] = await admin.query<RowDataPacket[]>('SELECT id FROM ??.a', [schema]);
    expect(rows).toHaveLength(1);
  });

  it('waits for another run, and after its deadline says how to find who holds the lock', async () => {
    write('0001_a.sql', 'CREATE TABLE a (id INT PRIMARY KEY)');
    await run();
    write('0002_b.sql', 'ALTER TABLE a ADD COLUMN b INT');
    const unlock = await lockTable('a');
    const first = run();
    try {
      await vi.waitFor(async () => expect(await states()).toEqual(['applied', 'half-applied']), 20_000);
      const lines: string[] = [];
      const onProgress = (line: string) => lines.push(line);
      await expect(run({ lockTimeoutSeconds: 1, onProgress })).rejects.toEqual(
        coded('ONCEBOX_MIGRATION_LOCKED', /IS_USED_LOCK\('.*'\)/),
      );
      expect(lines).toEqual([expect.stringContaining('another migration is under way')]);
    } finally {
      unlock();
    }
    expect(await first).toEqual(['service/0002_b.sql']);
    expect(await run()).toEqual([]);
  });

  it('refuses an edited migration and then applies nothing else either', async () => {
    write('0001_a.sql', 'CREATE TABLE a (id INT PRIMARY KEY)');
    await run();
    write('0001_a.sql', 'CREATE TABLE a (id BIGINT PRIMARY KEY)');
    write('0002_b.sql', 'CREATE TABLE b (id INT PRIMARY KEY)');
    await expect(run()).rejects.toEqual(
      coded('ONCEBOX_MIGRATION_EDITED', /0001_a\.sql .* put the change into a new file/),
    );
    expect(await columns('b')).toEqual([]);
    expect(await states()).toEqual(['edited', 'pending']);
  });

  it('refuses to go on without a migration that it has applied, or with a new one below it', async () => {
    write('0002_b.sql', 'CREATE TABLE b (id INT PRIMARY KEY)');
    await run();
    write('0001_a.sql', 'CREATE TABLE a (id INT PRIMARY KEY)');
    await expect(run()).rejects.toEqual(coded('ONCEBOX_MIGRATION_OUT_OF_ORDER', /0001_a\.sql/));
    rmSync(join(folder, '0002_b.sql'));
    await expect(run()).rejects.toEqual(coded('ONCEBOX_MIGRATION_MISSING', /0002_b\.sql/));
  });

  it('goes on behind the last completed statement, once the refused one has been corrected', async () => {
    const good = 'CREATE TABLE a (id INT PRIMARY KEY);\nINSERT INTO a VALUES (1);\n';
    write('0001_a.sql', `${good}ALTER TABLE a ADD COLUMN nonsense NO_SUCH_TYPE;\nCREATE TABLE b (id INT PRIMARY KEY);`);
    await expect(run()).rejects.toEqual(coded('ONCEBOX_MIGRATION_FAILED', /statement 3 of 4 \(line 3\)/));
    expect(await states()).toEqual(['half-applied']);

    write('0001_a.sql', `${good}ALTER TABLE a ADD COLUMN sense INT;\nCREATE TABLE b (id INT PRIMARY KEY);`);
    const lines: string[] = [];
    // The first two would fail or double the row if they ran again.
    expect(await run({ onProgress: (line) => lines.push(line) })).toEqual(['service/0001_a.sql']);
    expect(lines).toEqual([expect.stringContaining('from statement 3 on')]);
    expect(await columns('a')).toEqual(['id', 'sense']);
    expect(await columns('b')).toEqual(['id']);
    expect(await states()).toEqual(['applied']);
    expect(await run()).toEqual([]);
  });

  it('rolls back a data statement that fails, and does not quote the data', async () => {
    write(
      '0001_a.sql',
      `CREATE TABLE a (email VARCHAR(99) PRIMARY KEY); INSERT INTO a VALUES ('x@y.example'), ('x@y.example');`,
    );
    const failure: unknown = await run().catch((error: unknown) => error);
    expect(failure).toEqual(coded('ONCEBOX_MIGRATION_FAILED', /statement 2 of 2.*ER_DUP_ENTRY/));
    expect(String(failure)).not.toContain('x@y.example');
    const [rows] = await admin.query<RowDataPacket[]>('SELECT * FROM ??.a', [schema]);
    expect(rows).toEqual([]);
  });
});

describe('migrationStatus', () => {
  it('has everything pending for a schema that does not exist, and does not create it', async () => {
    write('0001_a.sql', 'CREATE TABLE a (id INT PRIMARY KEY)');
    expect(await states()).toEqual(['pending']);
    const [rows] = await admin.query<RowDataPacket[]>('SHOW DATABASES LIKE ?', [schema]);
    expect(rows).toEqual([]);
  });

  it('leaves a folder with a wrongly named or numbered file to a person', async () => {
    write('1_a.sql', 'CREATE TABLE a (id INT PRIMARY KEY)');
    await expect(states()).rejects.toEqual(coded('ONCEBOX_MIGRATION_INVALID', /1_a\.sql: its name/));
    rmSync(join(folder, '1_a.sql'));
    write('0001_a.sql', 'CREATE TABLE a (id INT PRIMARY KEY)');
    write('0001_b.sql', 'CREATE TABLE b (id INT PRIMARY KEY)');
    await expect(run()).rejects.toEqual(
      coded('ONCEBOX_MIGRATION_INVALID', /0001_b\.sql: 0001_a\.sql has the same number/),
    );
    await expect(migrate(databaseUrl, { schema, sets: [{ name: 'x', folder: join(root, 'none') }] })).rejects.toEqual(
      coded('ONCEBOX_MIGRATION_INVALID', /no such folder/),
    );
  });
});
