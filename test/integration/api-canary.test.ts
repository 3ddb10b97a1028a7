import { createPool, type Pool } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { start } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

const CANARY = 'canary7f3a';
const ada = { email: `${CANARY}@example.com`, name: `Ada ${CANARY}` };
const bob = { email: `bob.${CANARY}@example.com`, name: `Bob ${CANARY}` };

let schemas: TestSchemas;
let admin: Pool;

beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  admin = createPool(schemas.shop.adminUrl, { connections: 1 });
});
afterAll(async () => {
  await admin?.end();
  await schemas?.drop();
});

it('nothing of what clients send is in the log, at its most talkative, or in the metrics, whatever goes wrong', async () => {
  const proxy = await startProxy(schemas.shop.url);
  const api = start('apps/api/src/main.ts', {
    API_DATABASE_URL: proxy.url,
    AMQP_URL: 'amqp://a:b@127.0.0.1:1',
    API_PORT: '0',
    API_OPS_PORT: '0',
    LOG_LEVEL: 'trace',
  });
  const [, port] = await api.said(/^Listening on port (\d+)/);
  const call = async (method: string, path: string, body?: unknown, headers: Record<string, string> = {}) => {
    const text = typeof body === 'string' ? body : JSON.stringify(body);
    const response = await fetch(`http://127.0.0.1:${port}${path}`, {
      method,
      headers: { 'content-type': 'application/json', ...headers },
      ...(body === undefined ? {} : { body: text }),
    });
    await response.text();
    return response.status;
  };
  const post = (body: unknown, headers?: Record<string, string>) => call('POST', '/customers', body, headers);
  const key = { 'idempotency-key': `"${CANARY}"` };

  expect(await post(ada, key)).toBe(201);
  expect(await post(ada, key)).toBe(201);
  expect(await post(bob, key)).toBe(422);
  expect(await post(ada)).toBe(409);
  expect(await post(bob, { 'idempotency-key': `"${CANARY}` })).toBe(400);
  expect(await post(`{"email":"${CANARY}@example.com"`)).toBe(400);
  expect(await post({ email: CANARY, name: `${CANARY}\n`, [CANARY]: CANARY })).toBe(422);
  expect(await call('PATCH', `/customers/${CANARY}`, bob, { 'if-match': CANARY })).toBe(400);
  expect(await call('GET', `/customers/${CANARY}?q=${CANARY}`)).toBe(404);
  expect(await call('GET', `/${CANARY}`)).toBe(404);
  expect(await call('GET', `/customers/${CANARY}%E0%A4%A`)).toBe(400);

  const [[customer]] = await admin.query<RowDataPacket[]>('SELECT id FROM customers');
  const customerId = String(customer?.['id']);
  const items = [{ sku: 'SKU-1', quantity: 1 }];
  const order = { customerId, items, shippingAddress: CANARY, payment: { token: CANARY } };
  expect(await call('POST', '/orders', order)).toBe(202);
  expect(await call('POST', '/orders', { ...order, items: [{ sku: CANARY, quantity: CANARY }] })).toBe(422);
  expect(await call('POST', '/orders', { ...order, customerId: CANARY, items: [{ sku: CANARY }] })).toBe(422);

  // The server's own messages about these quote the value, and the driver's errors carry the statement.
  await admin.query('ALTER TABLE customers ADD UNIQUE KEY other (name)');
  expect(await post({ ...bob, name: ada.name })).toBe(500);
  await admin.query('ALTER TABLE customers DROP KEY other, ADD CONSTRAINT no_bob CHECK (name NOT LIKE "Bob%")');
  expect(await post(bob)).toBe(500);
  await admin.query('RENAME TABLE outbox TO outbox_away');
  expect(await post({ ...bob, name: CANARY }, { 'idempotency-key': `other-${CANARY}` })).toBe(500);
  expect(await call('POST', '/orders', order)).toBe(500);
  await proxy.refuse();
  expect(await post(bob, key)).toBe(503);

  expect(await api.page('/metrics')).not.toMatch(new RegExp(CANARY, 'i'));
  api.kill('SIGTERM');
  await api.exited;
  expect(api.lines.filter(({ level }) => level === 'error')).toHaveLength(4);
  expect(api.lines.filter(({ msg }) => /^(POST|PATCH|GET) /.test(msg))).toHaveLength(19);
  expect(JSON.stringify(api.lines)).not.toMatch(new RegExp(CANARY, 'i'));
});
