import { createServer as createHttpServer } from 'node:http';
import { createInbox, defineConsumer, on } from '@oncebox/inbox';
import { createPool, isUnavailable, type Pool, transaction } from '@oncebox/mysql';
import { createRelay } from '@oncebox/outbox';
import { createLogger, listen, startOpsServer } from '@oncebox/service';
import { createConnection, createPool as createRawPool, type RowDataPacket } from 'mysql2/promise';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, inject, onTestFinished, test } from 'vitest';
import { createApp } from '../../apps/api/src/app.ts';
import { consume, newName, PATIENCE, send, vhost } from '../support/consumers.ts';
import { createSchemas, type TestSchemas, urlOf } from '../support/schemas.ts';
import { Ticked } from '../support/ticks.ts';

/**
 * Whatever the reason for which the server gives no connection, it is an outage: nothing has been
 * tried.
 */

const isMariadb = inject('servers').kind === 'mariadb';
const silent = createLogger({ name: 'test', level: 'silent', format: 'json' });

let schemas: TestSchemas;
let admin: Pool;
beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  admin = createPool(schemas.fulfilment.adminUrl, { connections: 5 });
  await admin.query('CREATE TABLE effects (message_id VARBINARY(255) NOT NULL) ENGINE = InnoDB');
});
afterAll(async () => {
  await admin.end();
  await schemas.drop();
});

let users = 0;
/** A user of its own, who may do everything in the schema. */
async function newUser(): Promise<{ readonly name: string; readonly url: string }> {
  const name = `away${++users}_${schemas.fulfilment.name.slice(-10)}`;
  await admin.query("CREATE USER ?@'%' IDENTIFIED BY 'secret'", [name]);
  await admin.query("GRANT ALL ON ??.* TO ?@'%'", [schemas.fulfilment.name, name]);
  onTestFinished(async () => void (await admin.query("DROP USER ?@'%'", [name])));
  return { name, url: urlOf(schemas.fulfilment.adminUrl, schemas.fulfilment.name, { user: name, password: 'secret' }) };
}

/** The sessions that a user has, as when its processes lose them in a failover. */
async function killSessions(user: string): Promise<void> {
  const [sessions] = await admin.query<RowDataPacket[]>(
    'SELECT id AS id FROM information_schema.PROCESSLIST WHERE user = ?',
    [user],
  );
  for (const { id } of sessions) await admin.query('KILL ?', [id]).catch(() => undefined); // it has ended
}

interface Refusal {
  readonly name: string;
  readonly numbers: readonly number[];
  begin(user: string): Promise<unknown>;
  end(user: string): Promise<unknown>;
}

const alter = (what: string) => (user: string) => admin.query(`ALTER USER ?@'%' ${what}`, [user]);
const grants = (verb: string) => (user: string) =>
  admin.query(`${verb} ALL ON ??.* ${verb === 'GRANT' ? 'TO' : 'FROM'} ?@'%'`, [schemas.fulfilment.name, user]);

const refusals: readonly Refusal[] = [
  {
    name: 'a password that was rotated',
    numbers: [1045],
    begin: alter("IDENTIFIED BY 'new'"),
    end: alter("IDENTIFIED BY 'secret'"),
  },
  { name: 'a locked account', numbers: [4151, 3118], begin: alter('ACCOUNT LOCK'), end: alter('ACCOUNT UNLOCK') },
  {
    name: 'an expired password',
    numbers: [1862, 1820],
    begin: alter('PASSWORD EXPIRE'),
    end: alter("IDENTIFIED BY 'secret'"),
  },
  { name: 'no access to the schema', numbers: [1044], begin: grants('REVOKE'), end: grants('GRANT') },
  {
    name: 'a limit of connections an hour',
    numbers: [1226],
    begin: alter('WITH MAX_CONNECTIONS_PER_HOUR 1'),
    end: alter('WITH MAX_CONNECTIONS_PER_HOUR 0'),
  },
];

/** The server's number, wherever it is among the causes. */
function numberOf(error: unknown): number | undefined {
  const errno: unknown = error instanceof Error ? Reflect.get(error, 'errno') : undefined;
  if (typeof errno === 'number') return errno;
  return error instanceof Error && error.cause !== undefined ? numberOf(error.cause) : undefined;
}

const failureOf = (attempt: Promise<unknown>): Promise<unknown> =>
  attempt.then(
    () => 'no failure',
    (error) => error,
  );

describe.each(refusals)('$name', ({ numbers, begin, end }) => {
  test('C1: is an outage on every path, and names the number of the server', async () => {
    const user = await newUser();
    const pool = createPool(user.url, { connections: 2 });
    const raw = createRawPool({ uri: user.url, connectionLimit: 2 });
    onTestFinished(() => Promise.all([pool.end(), raw.end()]).then(() => undefined));
    await begin(user.name);
    // The limit counts from the next connection on. That one is nobody's who is tried here: a pool
    // may give a session away before it learns that the session was killed.
    if (numbers.includes(1226)) await createConnection(user.url).then((first) => first.end());
    const attempts: Readonly<Record<string, () => Promise<unknown>>> = {
      query: () => pool.query('SELECT 1'),
      execute: () => pool.execute('SELECT 1'),
      transaction: () => transaction(pool, (tx) => tx.query('SELECT 1')),
      getConnection: () => pool.getConnection().then((connection) => connection.query('SELECT 1')),
      'the pool of an adopter': () => transaction(raw, (tx) => tx.query('SELECT 1')),
    };
    for (const [path, attempt] of Object.entries(attempts)) {
      const error = await failureOf(attempt());
      // A session whose password has expired may begin; its first statement is refused.
      if (numberOf(error) !== 1820) expect(error, path).toMatchObject({ code: 'ONCEBOX_NO_CONNECTION' });
      expect(numbers, path).toContain(numberOf(error));
      expect(isUnavailable(error), path).toBe(true);
    }
    await end(user.name);
    await expect.poll(() => pool.query('SELECT 1').then(() => 'answered', String), PATIENCE).toBe('answered');
  });

  test('C1: costs no message of a consumer an attempt', async () => {
    const user = await newUser();
    const pool = createPool(user.url, { connections: 3 });
    onTestFinished(() => pool.end());
    const name = newName();
    let calls = 0;
    const begun = Promise.withResolvers<void>();
    const handler = on(Ticked(name), {
      async handle(tx, { id }) {
        if (++calls === 5) {
          await begin(user.name);
          await killSessions(user.name);
          begun.resolve();
        }
        await tx.execute('INSERT INTO effects (message_id) VALUES (?)', [Buffer.from(id)]);
      },
    });
    const definition = defineConsumer({ name, handlers: [handler], retryDelaysMs: [], batch: 1 });
    const inbox = createInbox(pool, definition);
    const consumer = await consume(name, inbox.process, { ...inbox, prefetch: 5 });
    const ids = Array.from({ length: 20 }, () => send(name, { type: 'Ticked' }));
    await begun.promise;
    await expect.poll(() => consumer.consuming, PATIENCE).toBe(false);
    await end(user.name);
    const done = async () => {
      const [rows] = await admin.query<RowDataPacket[]>(
        'SELECT CAST(message_id AS CHAR) AS id FROM effects WHERE message_id IN (?)',
        [ids.map((id) => Buffer.from(id))],
      );
      return rows.map((row) => String(row['id'])).sort();
    };
    await expect.poll(done, { ...PATIENCE, timeout: 60_000 }).toEqual([...ids].sort());
    await consumer.stop();
    expect(await vhost.depth(`${name}.dead`)).toBe(0);
  });
});

test('C1: a user who has fewer connections than the pool wants loses no message', async () => {
  const user = await newUser();
  await admin.query("ALTER USER ?@'%' WITH MAX_USER_CONNECTIONS 2", [user.name]);
  const pool = createPool(user.url, { connections: 10 });
  onTestFinished(() => pool.end());
  const name = newName();
  const handler = on(Ticked(name), {
    async handle(tx, { id }) {
      await tx.execute('INSERT INTO effects (message_id) VALUES (?)', [Buffer.from(id)]);
    },
  });
  const inbox = createInbox(pool, defineConsumer({ name, handlers: [handler], retryDelaysMs: [], batch: 1 }));
  const consumer = await consume(name, inbox.process, { ...inbox, prefetch: 20 });
  const ids = Array.from({ length: 60 }, () => send(name, { type: 'Ticked' }));
  const done = async () => {
    const [[row]] = await admin.query<RowDataPacket[]>('SELECT COUNT(*) AS n FROM effects WHERE message_id IN (?)', [
      ids.map((id) => Buffer.from(id)),
    ]);
    return row?.['n'];
  };
  await expect.poll(done, { ...PATIENCE, timeout: 60_000 }).toBe(ids.length);
  await consumer.stop();
  expect(await vhost.depth(`${name}.dead`)).toBe(0);
});

test('C1: the api answers 503 with Retry-After, and its readiness names the error of the server', async () => {
  const [lock, unlock] = [alter('ACCOUNT LOCK'), alter('ACCOUNT UNLOCK')];
  const run = schemas.shop.name.slice(-10);
  const pool = createPool(schemas.shop.url, { connections: 2 });
  const http = await listen(createHttpServer(createApp({ pool, logger: silent })), { port: 0, host: '127.0.0.1' });
  const checks = { database: () => pool.query({ sql: 'SELECT 1', timeout: 1_000 }) };
  const address = { port: 0, host: '127.0.0.1' };
  const ops = await startOpsServer({ ...address, checks, logger: silent, stopping: new AbortController().signal });
  onTestFinished(async () => {
    await unlock(`api_${run}`);
    await Promise.all([http.close(), ops.close(), pool.end()]);
  });
  await lock(`api_${run}`);
  const base = `http://127.0.0.1:${http.port}/customers`;
  const body = JSON.stringify({ email: 'ada@example.com', name: 'Ada' });
  const requests = [
    fetch(base, { method: 'POST', headers: { 'content-type': 'application/json' }, body }),
    fetch(`${base}/01980a5e-5c00-7000-8000-000000000001`),
  ];
  for (const { status, headers } of await Promise.all(requests)) {
    expect([status, headers.get('retry-after')]).toEqual([503, '2']);
  }
  const readiness = await fetch(`http://127.0.0.1:${ops.port}/readyz`);
  expect([readiness.status, await readiness.text()]).toEqual([
    503,
    expect.stringContaining(isMariadb ? '4151' : '3118'),
  ]);
});

test('C1: a relay whose account is locked waits, says so with the number of the server, and sends all afterwards', async () => {
  const [relayUrl = ''] = schemas.relayUrls.split(',');
  const user = new URL(relayUrl).username;
  const lines: string[] = [];
  const logger = pino({}, { write: (line: string) => void lines.push(line) });
  const publisher = { ready: true, publish: async () => ({ kind: 'confirmed' as const }) };
  await alter('ACCOUNT LOCK')(user);
  const relay = createRelay({ databaseUrls: [relayUrl], publisher, logger });
  onTestFinished(() => relay.stop());
  relay.start();
  await admin.query(
    `INSERT INTO ??.outbox (id, aggregatetype, aggregateid, type, version, payload) VALUES (UUID(), 'x', 'x', 'T', 1, '{}')`,
    [schemas.shop.name],
  );
  const number = isMariadb ? 4151 : 3118;
  await expect
    .poll(() => lines.some((line) => line.includes('Waiting for database') && line.includes(`${number}`)), PATIENCE)
    .toBe(true);
  expect(numberOf(await failureOf((async () => relay.assertDatabases())()))).toBe(number);
  await alter('ACCOUNT UNLOCK')(user);
  const pending = async () => {
    const [rows] = await admin.query<RowDataPacket[]>('SELECT state, attempts FROM ??.outbox', [schemas.shop.name]);
    return rows.map((row) => `${row['state']} ${row['attempts']}`);
  };
  await expect.poll(pending, PATIENCE).toEqual(['published 0']);
});
