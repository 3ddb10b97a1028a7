import { createServer as createHttpServer } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { createInbox, defineConsumer, on } from '@oncebox/inbox';
import { assertSuitable, createPool, isUnavailable, type Pool, transaction } from '@oncebox/mysql';
import { createRelay } from '@oncebox/outbox';
import { createLogger, listen, startOpsServer } from '@oncebox/service';
import { createPool as createRawPool, type RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, expect, inject, onTestFinished, test, vi } from 'vitest';
import { createApp } from '../../apps/api/src/app.ts';
import { consume, newName, PATIENCE, send, vhost } from '../support/consumers.ts';
import { startProxy, type TcpProxy } from '../support/proxy.ts';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';
import { Ticked } from '../support/ticks.ts';

/**
 * Connections that fall silent give no error: every wait for them has a deadline, and they are
 * given up at it.
 */

vi.setConfig({ testTimeout: 120_000 });

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

/**
 * What a promise comes to within a bound: a wait without a deadline is what these tests are about.
 */
const within = <T>(ms: number, promise: Promise<T>): Promise<T | 'still waiting'> =>
  Promise.race([promise, delay(ms, 'still waiting' as const, { ref: false })]);
const outcomeOf = (promise: Promise<unknown>) =>
  promise.then(
    () => 'answered',
    (error) => (isUnavailable(error) ? 'an outage' : error),
  );

/** A pool by way of a proxy, with so many idle connections. */
async function idlePool(connections: number): Promise<{ readonly proxy: TcpProxy; readonly pool: Pool }> {
  const proxy = await startProxy(schemas.fulfilment.adminUrl);
  const pool = createPool(proxy.url, { connections, statementTimeoutMs: 1_000 });
  onTestFinished(() => pool.end());
  await Promise.all(Array.from({ length: connections }, () => pool.query('SELECT SLEEP(0.2)')));
  return { proxy, pool };
}

const silences: readonly [string, (proxy: TcpProxy) => void][] = [
  ['falls silent', (proxy) => proxy.blackhole('toServer', 'toClient')],
  ['gives no answers', (proxy) => proxy.blackhole('toClient')],
];

test.each(silences)('C2: every statement on a pool whose network %s ends as an outage', async (_how, cause) => {
  const { proxy, pool } = await idlePool(3);
  cause(proxy);
  for (let round = 0; round < 6; round++) {
    const attempts = [
      pool.query('SELECT 1'),
      pool.execute('SELECT ?', [1]),
      pool.query({ sql: 'SELECT 1', timeout: 300 }),
    ];
    expect(await within(10_000, Promise.all(attempts.map(outcomeOf)))).toEqual(Array(3).fill('an outage'));
  }
  await proxy.pass();
  await expect.poll(() => outcomeOf(pool.query('SELECT 1')), PATIENCE).toBe('answered');
});

test('C2: after one deadline the other idle connections are given up as well', async () => {
  const { proxy, pool } = await idlePool(8);
  proxy.strand();
  expect(await outcomeOf(pool.query('SELECT 1'))).toBe('an outage');
  const attempts = Array.from({ length: 8 }, () => pool.query('SELECT 1'));
  expect(await within(10_000, Promise.all(attempts.map(outcomeOf)))).toEqual(Array(8).fill('answered'));
});

test('C2: a transaction notices a dead connection when it begins, and not at the end of its time', async () => {
  const { proxy, pool } = await idlePool(4);
  proxy.strand();
  const begin = () => transaction(pool, (tx) => tx.query('SELECT 1'), { timeoutMs: 100_000 });
  expect(await within(10_000, outcomeOf(begin()))).toBe('an outage');
  expect(await within(10_000, outcomeOf(begin()))).toBe('answered');
});

test('C2: the check of the server gives up a connection of an adopter that is silent', async () => {
  const proxy = await startProxy(schemas.fulfilment.adminUrl);
  const raw = createRawPool({ uri: proxy.url, connectionLimit: 1 });
  await raw.query('SELECT 1');
  proxy.strand();
  expect(await within(20_000, outcomeOf(assertSuitable(raw)))).toBe('an outage');
  expect(await within(20_000, outcomeOf(assertSuitable(raw)))).toBe('answered');
  await raw.end();
});

test('C2: readiness probes do not use up the pool, and the process is ready again', async () => {
  const { proxy, pool } = await idlePool(4);
  const checks = { database: () => pool.query('SELECT 1') };
  const address = { port: 0, host: '127.0.0.1' };
  const ops = await startOpsServer({ ...address, checks, logger: silent, stopping: new AbortController().signal });
  onTestFinished(() => ops.close());
  const probe = async () => (await fetch(`http://127.0.0.1:${ops.port}/readyz`)).status;
  expect(await probe()).toBe(200);
  proxy.strand();
  expect(await probe()).toBe(503);
  await expect.poll(probe, PATIENCE).toBe(200);
});

test('C2: a pool ends although its connections are silent, with statements under way', async () => {
  const proxy = await startProxy(schemas.fulfilment.adminUrl);
  const pool = createPool(proxy.url, { connections: 3 });
  await pool.query('SELECT 1');
  const late = [1, 2].map(() => outcomeOf(pool.query('SELECT SLEEP(1)')));
  proxy.blackhole('toServer', 'toClient');
  const opening = outcomeOf(pool.query('SELECT 1'));
  expect(
    await within(
      5_000,
      pool.end().then(() => 'ended'),
    ),
  ).toBe('ended');
  await proxy.refuse();
  await Promise.all([...late, opening]);
});

const relayUrlBy = (proxy: TcpProxy) => {
  const url = new URL(schemas.relayUrls.split(',')[0] ?? '');
  url.host = proxy.address;
  return url.href;
};
const addMessage = () =>
  admin.query(
    `INSERT INTO ??.outbox (id, aggregatetype, aggregateid, type, version, payload) VALUES (UUID(), 'x', 'x', 'T', 1, '{}')`,
    [schemas.shop.name],
  );
async function startRelay(proxy: TcpProxy) {
  let sent = 0;
  const publish = async () => {
    sent += 1;
    return { kind: 'confirmed' as const };
  };
  const logger = { info() {}, warn() {}, error() {} };
  const relay = createRelay({ databaseUrls: [relayUrlBy(proxy)], publisher: { ready: true, publish }, logger });
  relay.start();
  await addMessage();
  const isSettled = async () =>
    (await admin.query<RowDataPacket[]>("SELECT 1 FROM ??.outbox WHERE state <> 'published'", [schemas.shop.name]))[0]
      .length;
  await expect.poll(isSettled, PATIENCE).toBe(0);
  expect(sent).toBe(1);
  return { relay, sent: () => sent };
}

test.each([
  ['falls silent', (proxy: TcpProxy) => proxy.blackhole('toServer', 'toClient')],
  ['leaves its connections dead', (proxy: TcpProxy) => proxy.strand()],
])('C2: a relay whose network %s sends again when the network is back', async (_how, cause) => {
  const proxy = await startProxy(schemas.shop.adminUrl);
  const { relay, sent } = await startRelay(proxy);
  cause(proxy);
  await addMessage();
  await expect
    .poll(() => {
      try {
        return relay.assertDatabases();
      } catch (error) {
        return String(Reflect.get(Object(error), 'code'));
      }
    }, PATIENCE)
    .toBe('ETIMEDOUT');
  await proxy.pass();
  await expect.poll(sent, { ...PATIENCE, timeout: 60_000 }).toBe(2);
  await relay.stop();
});

test('C2: a relay stops although its network is silent, idle or in the middle of its work', async () => {
  const proxy = await startProxy(schemas.shop.adminUrl);
  const { relay } = await startRelay(proxy);
  proxy.blackhole('toServer', 'toClient');
  await addMessage();
  expect(
    await within(
      9_000,
      relay.stop().then(() => 'stopped'),
    ),
  ).toBe('stopped');
  await admin.query('DELETE FROM ??.outbox', [schemas.shop.name]);
});

test('C2: a worker whose connections are dead goes on, and no message pays', async () => {
  const { proxy, pool } = await idlePool(5);
  const name = newName();
  const handler = on(Ticked(name), {
    async handle(tx, { id }) {
      await tx.execute('INSERT INTO effects (message_id) VALUES (?)', [Buffer.from(id)]);
    },
  });
  const inbox = createInbox(pool, defineConsumer({ name, handlers: [handler], retryDelaysMs: [] }));
  const consumer = await consume(name, inbox.process, { ...inbox });
  proxy.strand();
  const ids = Array.from({ length: 30 }, () => send(name, { type: 'Ticked' }));
  const done = async () => {
    const [[row]] = await admin.query<RowDataPacket[]>('SELECT COUNT(*) AS n FROM effects WHERE message_id IN (?)', [
      ids.map((id) => Buffer.from(id)),
    ]);
    return row?.['n'];
  };
  // Well below the time that a handler has, at the end of which it was noticed before.
  await expect.poll(done, PATIENCE).toBe(ids.length);
  await consumer.stop();
  expect(await vhost.depth(`${name}.dead`)).toBe(0);
});

test('C2: the api answers 503 on dead connections, and 200 right after', async () => {
  const proxy = await startProxy(schemas.shop.adminUrl);
  const pool = createPool(proxy.url, { connections: 6, statementTimeoutMs: 1_000 });
  const http = await listen(createHttpServer(createApp({ pool, logger: silent })), { port: 0, host: '127.0.0.1' });
  onTestFinished(() => http.close().then(() => pool.end()));
  const read = async () =>
    (await fetch(`http://127.0.0.1:${http.port}/customers/01980a5e-5c00-7000-8000-000000000001`)).status;
  await Promise.all(Array.from({ length: 6 }, read));
  proxy.strand();
  expect(await read()).toBe(503);
  expect(await Promise.all(Array.from({ length: 6 }, read))).toEqual(Array(6).fill(404));
});
