import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type Server } from 'node:net';
import { createInterface } from 'node:readline';
import { createPool } from '@oncebox/mysql';
import { afterAll, afterEach, beforeAll, expect, inject, it } from 'vitest';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

const ROOT = new URL('../..', import.meta.url);
const ada = JSON.stringify({ email: 'ada@example.com', name: 'Ada' });

let schemas: TestSchemas;
const running: ChildProcess[] = [];

beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
});
afterEach(() => {
  for (const child of running.splice(0)) child.kill('SIGKILL');
});
afterAll(() => schemas?.drop());

interface Line {
  readonly level: string;
  readonly msg: string;
}

/** The api as it is deployed: a process of its own, told by its environment alone. */
async function startApi(databaseUrl: string) {
  const environment = { PATH: process.env['PATH'], API_DATABASE_URL: databaseUrl, API_PORT: '0', API_OPS_PORT: '0' };
  const main = ['--conditions=oncebox-source', 'apps/api/src/main.ts'];
  const child = spawn(process.execPath, main, { cwd: ROOT, env: environment, stdio: ['ignore', 'pipe', 'inherit'] });
  running.push(child);
  const lines: Line[] = [];
  const reader = createInterface(child.stdout).on('line', (line) => lines.push(JSON.parse(line)));
  const exited = Promise.all([once(child, 'exit'), once(reader, 'close')]).then(([[code]]) => code);
  const said = (text: RegExp) =>
    expect.poll(() => lines.map(({ msg }) => msg), { timeout: 20_000 }).toContainEqual(expect.stringMatching(text));
  await said(/^Listening/);
  const [, port, ops] =
    /port (\d+).*port (\d+)/.exec(lines.find(({ msg }) => msg.startsWith('Listening'))?.msg ?? '') ?? [];
  const post = (body = ada) =>
    fetch(`http://127.0.0.1:${port}/customers`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
    });
  const ready = async () => (await fetch(`http://127.0.0.1:${ops}/readyz`)).status;
  return { child, lines, said, exited, port: Number(port), post, ready };
}

it('starts without its database, says which one it waits for, and serves once it is there', async () => {
  const { hostname, port } = new URL(schemas.shop.url);
  const door = createServer((client) => {
    const server = connect(Number(port || 3306), hostname);
    client.pipe(server).on('error', () => client.destroy());
    server.pipe(client).on('error', () => server.destroy());
  });
  const url = new URL(schemas.shop.url);
  url.host = `127.0.0.1:${await freePort(door)}`;

  const api = await startApi(url.href);
  await api.said(new RegExp(`^Waiting for database ${url.host}: ECONNREFUSED$`));
  expect((await api.post()).status).toBe(503);
  expect(await api.ready()).toBe(503);

  await once(door.listen(Number(url.port), '127.0.0.1'), 'listening');
  await api.said(new RegExp(`^Found database ${url.host}$`));
  await expect.poll(api.ready).toBe(200);
  expect((await api.post()).status).toBe(201);

  api.child.kill('SIGTERM');
  expect(await api.exited).toBe(0);
  door.close();
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
  api.child.kill('SIGTERM');
  api.child.kill('SIGINT');
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

/** A port on which nobody listens: this server did a moment ago, and will again. */
async function freePort(server: Server): Promise<number> {
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('The server does not listen on a port');
  return address.port;
}
