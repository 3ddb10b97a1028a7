import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { start } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import { type Api, createSystem, type System } from '../support/system.ts';

/** GET /availability, from the client over api and broker to the worker and back. */

const PATIENCE = { timeout: 60_000, interval: 50 };

let system: System;
beforeAll(async () => {
  system = await createSystem(inject('servers'));
});
afterAll(() => system?.drop());

async function ask(api: Api, sku = 'SKU-1', quantity = '2') {
  const response = await fetch(`${api.url}/availability?sku=${sku}&quantity=${quantity}`);
  const body: unknown = await response.json();
  return { status: response.status, body, retryAfter: response.headers.get('retry-after') };
}
const problem = (name: string) => ({ type: `urn:oncebox:problem:${name}` });

test('says whether there is enough, how many there are, and how long the answer took', async () => {
  const [api, worker] = [await system.api(), system.worker()];
  await worker.ready();
  await expect.poll(async () => (await ask(api)).status, PATIENCE).toBe(200);
  const processingMs = expect.any(Number);
  const answer = { sku: 'SKU-1', available: true, inStock: 1_000, processingMs };
  expect((await ask(api)).body).toEqual({ ...answer, quantity: 2 });
  expect((await ask(api, 'SKU-1', '1001')).body).toEqual({ ...answer, quantity: 1_001, available: false });
  const nothing = { sku: 'no-product', quantity: 1, available: false, inStock: 0, processingMs };
  expect((await ask(api, 'no-product', '1')).body).toEqual(nothing);
  expect(await ask(api, 'SKU%201', 'two')).toMatchObject({
    status: 422,
    body: { ...problem('invalid-fields'), errors: [{ field: 'sku' }, { field: 'quantity' }] },
  });
});

test('is 504 after the deadline, and a worker that wakes up does not begin what is over it', async () => {
  const [api, worker] = [await system.api(), system.worker()];
  await worker.ready();
  await expect.poll(async () => (await ask(api)).status, PATIENCE).toBe(200);
  worker.kill('SIGSTOP');
  expect(await ask(api)).toMatchObject({ status: 504, body: problem('upstream-timeout') });
  worker.kill('SIGCONT');
  await worker.said(/^A CheckAvailability came after its deadline, and was not begun$/);
  await expect.poll(async () => (await ask(api)).status, PATIENCE).toBe(200);
});

describe('is 503', () => {
  const unavailable = { status: 503, body: problem('upstream-unavailable'), retryAfter: '2' };

  test('while the broker is away, and works again when it is back', async () => {
    const proxy = await startProxy(system.vhost.amqpUrl);
    const [api, worker] = [await system.api({ AMQP_URL: proxy.url }), system.worker()];
    await worker.ready();
    await expect.poll(async () => (await ask(api)).status, PATIENCE).toBe(200);
    await proxy.refuse();
    await expect.poll(() => ask(api), PATIENCE).toMatchObject(unavailable);
    await proxy.pass();
    await expect.poll(async () => (await ask(api)).status, PATIENCE).toBe(200);
  });

  test('for an api that has no broker', async () => {
    const api = start('apps/api/src/main.ts', {
      API_DATABASE_URL: system.schemas.shop.url,
      API_PORT: '0',
      API_OPS_PORT: '0',
    });
    const [, port] = await api.said(/^Listening on port (\d+)/);
    expect(await ask({ ...api, url: `http://127.0.0.1:${port}` })).toMatchObject(unavailable);
  });

  test('for what waits when the api is stopped', async () => {
    const [api, worker] = [await system.api(), system.worker()];
    await worker.ready();
    await expect.poll(async () => (await ask(api)).status, PATIENCE).toBe(200);
    worker.kill('SIGTERM');
    await worker.exited;
    const waiting = ask(api);
    await expect.poll(() => system.vhost.depth('inventory.CheckAvailability'), PATIENCE).toBe(1);
    api.kill('SIGTERM');
    expect(await waiting).toMatchObject(unavailable);
    expect(await api.exited).toBe(0);
  });
});
