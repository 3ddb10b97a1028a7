import { createPool } from '@oncebox/mysql';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { type Program, start } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

const ada = JSON.stringify({ email: 'ada@example.com', name: 'Ada' });

let schemas: TestSchemas;
beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
});
afterAll(() => schemas?.drop());

interface Api extends Program {
  readonly post: (body?: string) => Promise<Response>;
}

/** The api without the others: what its own process does. */
async function startApi(databaseUrl: string): Promise<Api> {
  // No broker is there: the api serves without.
  const given = { API_DATABASE_URL: databaseUrl, AMQP_URL: 'amqp://a:b@127.0.0.1:1' };
  const environment = { ...given, API_PORT: '0', API_OPS_PORT: '0' };
  const program = start('apps/api/src/main.ts', environment);
  const [, port] = await program.said(/^Listening on port (\d+)/);
  const headers = { 'content-type': 'application/json' };
  const post = (body = ada) => fetch(`http://127.0.0.1:${port}/customers`, { method: 'POST', headers, body });
  return { ...program, post };
}

it('starts without its database, says which one it waits for, and serves once it is there', async () => {
  const proxy = await startProxy(schemas.shop.url);
  await proxy.refuse();
  const api = await startApi(proxy.url);
  await api.said(new RegExp(`^Waiting for database ${proxy.address}: ECONNREFUSED$`));
  expect((await api.post()).status).toBe(503);
  expect(await api.probe('/readyz')).toBe(503);

  await proxy.pass();
  await api.said(new RegExp(`^Found database ${proxy.address}$`));
  await api.ready();
  expect((await api.post()).status).toBe(201);

  api.kill('SIGTERM');
  expect(await api.exited).toBe(0);
});

it('on SIGTERM answers the request that is under way, takes no new one, and exits 0', async () => {
  const api = await startApi(schemas.shop.url);
  const admin = createPool(schemas.shop.adminUrl, { connections: 1 });
  const holder = await admin.getConnection();
  await holder.beginTransaction();
  await holder.query("INSERT INTO customers (id, email, name) VALUES ('held', 'bob@example.com', 'Bob')");

  const under = api.post(JSON.stringify({ email: 'bob@example.com', name: 'Bob' })).then(({ status }) => status);
  under.catch(() => undefined); // awaited below; until then a failure would end the test run
  const inserting = async () => {
    const [rows] = await holder.query(
      "SELECT COUNT(*) AS n FROM information_schema.processlist WHERE db = ? AND info LIKE 'INSERT INTO customers%'",
      [schemas.shop.name],
    );
    return JSON.stringify(rows);
  };
  await expect.poll(inserting, { timeout: 10_000 }).toBe('[{"n":1}]');
  api.kill('SIGTERM');
  api.kill('SIGINT');
  await api.said(/^SIG(TERM|INT): stopping$/);
  await expect
    .poll(() =>
      api.post().then(
        ({ status }) => status,
        () => 'refused',
      ),
    )
    .toBe('refused');

  await holder.rollback();
  holder.release();
  await admin.end();
  expect(await under).toBe(201);
  expect(await api.exited).toBe(0);
  expect(api.lines.at(-1)?.msg).toBe('Stopped');
});

it('writes one line for each request, without what the client sent', async () => {
  const api = await startApi(schemas.shop.url);
  await api.post(JSON.stringify({ email: 'carol@example.com', name: 'Carol Secret' }));
  await api.post(JSON.stringify({ email: 'carol@example.com', name: 'Carol Secret' }));
  await api.post('{"email":"carol@example.com');
  await api.said(/^POST \/customers 400/);
  const requests = api.lines.filter(({ msg }) => msg.startsWith('POST'));
  expect(requests.map(({ msg }) => msg.slice(0, 19))).toEqual([
    'POST /customers 201',
    'POST /customers 409',
    'POST /customers 400',
  ]);
  expect(requests[0]).toMatchObject({
    level: 'info',
    path: '/customers',
    status: 201,
    ms: expect.any(Number),
    correlationId: expect.any(String),
  });
  expect(JSON.stringify(api.lines)).not.toMatch(/carol/i);
});
