import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createPool, type Pool } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it, vi } from 'vitest';
import { startOncebox } from '../support/oncebox.ts';
import { dropAll, urlOf } from '../support/schemas.ts';

const { databaseUrl } = inject('servers');

let admin: Pool;
let root: string;
let schema: string;
let folder: string;
let env: Record<string, string>;

beforeAll(() => {
  admin = createPool(databaseUrl, { connections: 3 });
  root = mkdtempSync(join(tmpdir(), 'oncebox-command-'));
});
afterAll(async () => {
  await admin.end();
  rmSync(root, { recursive: true });
});
beforeEach(() => {
  const run = randomBytes(5).toString('hex');
  schema = `billing_${run}`;
  folder = join(root, schema);
  mkdirSync(folder);
  env = {
    MIGRATE_DATABASE_URL: databaseUrl,
    BILLING_DATABASE_URL: urlOf(databaseUrl, schema, { user: `billing_${run}`, password: 'billing-password' }),
    RELAY_DATABASE_URLS: urlOf(databaseUrl, schema, { user: `relay_${run}`, password: 'relay-password' }),
  };
});
afterEach(() => dropAll(databaseUrl, [schema], [env['BILLING_DATABASE_URL'] ?? '', env['RELAY_DATABASE_URLS'] ?? '']));

const start = (...args: string[]) => startOncebox(['migrate', ...args], env, folder);
const oncebox = (...args: string[]) => start(...args).ended;

async function tables(): Promise<string[]> {
  const [rows] = await admin.query<RowDataPacket[]>(
    'SELECT TABLE_NAME AS name FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? ORDER BY TABLE_NAME',
    [schema],
  );
  return rows.map((row) => String(row['name']));
}

async function underWay(): Promise<RowDataPacket[]> {
  const [rows] = await admin.query<RowDataPacket[]>('SELECT begun FROM ??.schema_migrations WHERE completed < begun', [
    schema,
  ]);
  return rows;
}

/** What runs in the schema at this moment. */
async function statements(): Promise<unknown[]> {
  const [rows] = await admin.query<RowDataPacket[]>('SHOW FULL PROCESSLIST');
  return rows.filter((row) => row['db'] === schema).map((row) => row['Info']);
}

describe('oncebox migrate', () => {
  it("gives an adopter's schema the tables of messaging alone, and its users", async () => {
    const first = await oncebox('--service', 'BILLING_DATABASE_URL');
    expect(first).toMatchObject({ code: 0, stderr: '' });
    expect(first.stdout).toContain(`${schema}: applied messaging/0001_outbox.sql`);
    expect(first.stdout).not.toMatch(/password/);
    expect(await tables()).toEqual(expect.arrayContaining(['outbox', 'processed_messages', 'schema_migrations']));
    const service = createPool(env['BILLING_DATABASE_URL'] ?? '', { connections: 1 });
    await service.query('SELECT seq FROM outbox');
    await service.end();

    const second = await oncebox('--service', 'BILLING_DATABASE_URL', '--json');
    expect(JSON.parse(second.stdout)).toEqual([{ schema, applied: [] }]);
    expect(second.stderr).toContain(`${schema}: nothing to do`);
  });

  it('leaves the tables that it does not migrate out of its grants', async () => {
    await admin.query('CREATE DATABASE ??', [schema]);
    await admin.query('CREATE TABLE ??.secrets (id INT PRIMARY KEY)', [schema]);
    expect((await oncebox('--service', 'BILLING_DATABASE_URL')).code).toBe(0);
    const service = createPool(env['BILLING_DATABASE_URL'] ?? '', { connections: 1 });
    await expect(service.query('SELECT * FROM secrets')).rejects.toMatchObject({ errno: 1142 });
    await service.end();
  });

  it('applies once when several processes run at the same time', async () => {
    writeFileSync(join(folder, '0001_a.sql'), 'CREATE TABLE a (id INT PRIMARY KEY);');
    const runs = await Promise.all([1, 2, 3].map(() => oncebox('--service', 'BILLING_DATABASE_URL:.', '--json')));
    expect(runs.map(({ code }) => code)).toEqual([0, 0, 0]);
    const applied = runs.map(({ stdout }) => JSON.parse(stdout)[0].applied.length);
    expect(applied.filter((count) => count > 0)).toHaveLength(1);
  });

  it('shows in status what is applied and what is not, and fails there when a run would', async () => {
    writeFileSync(join(folder, '0001_a.sql'), 'CREATE TABLE a (id INT PRIMARY KEY);');
    const before = await oncebox('status', '--service', 'BILLING_DATABASE_URL:.');
    expect(before.code).toBe(0);
    expect(before.stdout).toMatch(/^SCHEMA +SET +MIGRATION +STATE\n/);
    expect(before.stdout).toMatch(new RegExp(`${schema} +service +0001_a.sql +pending`));
    expect(await tables()).toEqual([]);

    await oncebox('--service', 'BILLING_DATABASE_URL:.');
    writeFileSync(join(folder, '0001_a.sql'), 'CREATE TABLE a (id BIGINT PRIMARY KEY);');
    const after = await oncebox('status', '--service', 'BILLING_DATABASE_URL:.', '--json');
    expect(after.code).toBe(1);
    expect(JSON.parse(after.stdout)).toContainEqual({
      schema,
      set: 'service',
      name: '0001_a.sql',
      state: 'edited',
      problem: { code: 'ONCEBOX_MIGRATION_EDITED', message: expect.stringContaining('0001_a.sql') },
    });
    expect(await oncebox('--service', 'BILLING_DATABASE_URL:.')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('(ONCEBOX_MIGRATION_EDITED)'),
    });
  });

  it('explains a statement that it was killed in, and goes on when its explanation was followed', async () => {
    writeFileSync(join(folder, '0001_a.sql'), 'CREATE TABLE a (id INT PRIMARY KEY);');
    await oncebox('--service', 'BILLING_DATABASE_URL:.');
    writeFileSync(
      join(folder, '0002_b.sql'),
      'CREATE TABLE b (id INT PRIMARY KEY);\nALTER TABLE a ADD COLUMN b INT;\nINSERT INTO b VALUES (1);',
    );
    const blocker = await admin.getConnection();
    await blocker.query('LOCK TABLES ??.a READ', [schema]);
    const killed = start('--service', 'BILLING_DATABASE_URL:.');
    try {
      await vi.waitFor(async () => expect(await underWay()).toEqual([{ begun: 2 }]), { timeout: 20_000, interval: 50 });
      killed.kill();
      expect((await killed.ended).code).toBeNull();
    } finally {
      blocker.destroy();
    }

    const refused = await oncebox('--service', 'BILLING_DATABASE_URL:.');
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain('ONCEBOX_MIGRATION_HALF_APPLIED');
    expect(refused.stderr).toContain('statement 2 of 3 was under way (line 2: ALTER TABLE a ADD COLUMN b INT)');
    const [ifItDid = '', ifItDidNot = ''] = refused.stderr.match(/UPDATE `.*;/g) ?? [];
    const [columns] = await admin.query<RowDataPacket[]>('SHOW COLUMNS FROM ??.a', [schema]);
    await admin.query(columns.length === 2 ? ifItDid : ifItDidNot);

    expect((await oncebox('--service', 'BILLING_DATABASE_URL:.')).code).toBe(0);
    const [rows] = await admin.query<RowDataPacket[]>('SELECT a.b FROM ??.a RIGHT JOIN ??.b ON TRUE', [schema, schema]);
    expect(rows).toEqual([{ b: null }]);
  });

  it('counts a change of data once, though it was killed in it', async () => {
    writeFileSync(join(folder, '0001_a.sql'), 'CREATE TABLE a (n INT); INSERT INTO a VALUES (0);');
    await oncebox('--service', 'BILLING_DATABASE_URL:.');
    writeFileSync(join(folder, '0002_n.sql'), 'UPDATE a SET n = n + 1;');
    const blocker = await admin.getConnection();
    await blocker.query('START TRANSACTION');
    await blocker.query('SELECT * FROM ??.a FOR UPDATE', [schema]);
    const killed = start('--service', 'BILLING_DATABASE_URL:.');
    try {
      await vi.waitFor(async () => expect(await statements()).toContain('UPDATE a SET n = n + 1'), 20_000);
      killed.kill();
      expect((await killed.ended).code).toBeNull();
    } finally {
      blocker.destroy();
    }
    expect((await oncebox('--service', 'BILLING_DATABASE_URL:.')).code).toBe(0);
    const [rows] = await admin.query<RowDataPacket[]>('SELECT n FROM ??.a', [schema]);
    expect(rows).toEqual([{ n: 1 }]);
  });

  it('waits for a server that is not there yet, and says which', async () => {
    const real = new URL(databaseUrl);
    const proxy = createServer((client) => {
      const server = connect(Number(real.port), real.hostname);
      client.on('error', () => server.destroy()).pipe(server);
      server.on('error', () => client.destroy()).pipe(client);
    });
    const listen = async (port: number): Promise<number> => {
      await once(proxy.listen(port, '127.0.0.1'), 'listening');
      // An AddressInfo, since it listens on a port and not on a pipe.
      return (proxy.address() as AddressInfo).port;
    };
    const port = await listen(0);
    await once(proxy.close(), 'close');
    env['MIGRATE_DATABASE_URL'] = databaseUrl.replace(real.host, `127.0.0.1:${port}`);

    const waiting = start('--service', 'BILLING_DATABASE_URL');
    const { promise: told, resolve } = Promise.withResolvers<string>();
    waiting.onLine(resolve);
    expect(await told).toBe(`waiting for the database at 127.0.0.1:${port} (ECONNREFUSED)`);
    await listen(port);
    expect((await waiting.ended).code).toBe(0);
    proxy.close();
  });

  it.each([
    ['no service', [], 2, 'which service?'],
    ['a URL instead of a name', ['--service', 'mysql://a:hidden@b/c'], 2, 'the name of an environment variable'],
    ['an unknown option', ['--sevice', 'X'], 2, "'--sevice'"],
    ['an unknown action', ['undo', '--service', 'BILLING_DATABASE_URL'], 2, '"undo"'],
    ['a variable that is not set', ['--service', 'NO_SUCH_URL'], 1, 'NO_SUCH_URL is missing'],
    ['a folder that does not exist', ['--service', 'BILLING_DATABASE_URL:none'], 1, 'none: there is no such folder'],
  ])('ends with a line that says what is wrong, for %s', async (_case, args, code, message) => {
    const ended = await oncebox(...args);
    expect(ended).toMatchObject({ code, stdout: '' });
    expect(ended.stderr.split('\n')[0]).toContain(message);
    expect(ended.stderr).not.toContain('hidden');
  });

  it('refuses two passwords for one user, and a user without one', async () => {
    env['RELAY_DATABASE_URLS'] += `,${env['RELAY_DATABASE_URLS']?.replace('relay-password', 'another')}`;
    expect(await oncebox('--service', 'BILLING_DATABASE_URL')).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/two passwords to the database user "relay_/),
    });
    env['RELAY_DATABASE_URLS'] = env['RELAY_DATABASE_URLS']?.replaceAll(/:(relay-password|another)/g, '') ?? '';
    expect(await oncebox('--service', 'BILLING_DATABASE_URL')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('RELAY_DATABASE_URLS is wrong (must name a user and a password)'),
    });
    expect(await tables()).toEqual([]);
  });
});
