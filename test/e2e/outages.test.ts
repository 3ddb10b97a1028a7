import { afterAll, beforeAll, expect, inject, test, vi } from 'vitest';
import { type Broker, createBroker } from '../support/broker.ts';
import { startProxy } from '../support/proxy.ts';
import { createSystem, postCustomer, type System, send } from '../support/system.ts';

/** What is away is waited for, and what was committed meanwhile is delivered. */

const PATIENCE = { timeout: 60_000, interval: 50 };
/** Above the patience, so that a condition that does not come true says which it is; and a broker is started twice. */
vi.setConfig({ testTimeout: 180_000 });

let system: System;
beforeAll(async () => {
  system = await createSystem(inject('servers'));
});
afterAll(() => system?.drop());

const rows = (customers: readonly string[]) =>
  system.shop('SELECT DISTINCT state, attempts FROM outbox WHERE aggregateid IN (?)', [customers]);
const states = async (customers: readonly string[]) => (await rows(customers)).map(({ state }) => state);
const welcomed = async (customers: readonly string[]) => {
  const found = await system.fulfilment('SELECT customer_id FROM emails WHERE customer_id IN (?)', [customers]);
  return found.map((row) => String(row['customer_id'])).sort();
};

test('a message that no queue is bound for stays pending, and is delivered once the worker has declared its queue', async () => {
  const [api, relay] = [await system.api(), system.relay()];
  const id = await postCustomer(api, 'early');
  // Returned by the broker twice: it waits, and is not given up.
  await expect.poll(async () => Number((await rows([id]))[0]?.['attempts']), PATIENCE).toBeGreaterThanOrEqual(2);
  expect(await states([id])).toEqual(['pending']);
  expect(relay.lines.filter(({ msg }) => msg.startsWith('Published'))).toEqual([]);

  system.worker();
  await expect.poll(() => states([id]), PATIENCE).toEqual(['published']);
  await expect.poll(() => welcomed([id]), PATIENCE).toEqual([id]);
});

test('each process waits for the servers it needs, says which, is alive and not ready, and goes on once they are there', async () => {
  const [shop, fulfilment, broker] = await Promise.all([
    startProxy(system.schemas.shop.url),
    startProxy(system.schemas.fulfilment.url),
    startProxy(system.vhost.amqpUrl),
  ]);
  const servers = [shop, fulfilment, broker];
  await Promise.all(servers.map((server) => server.refuse()));
  const [api, relay, worker] = [
    await system.api({ API_DATABASE_URL: shop.url }),
    system.relay({ RELAY_DATABASE_URLS: relayUrl(shop.address), AMQP_URL: broker.url }),
    system.worker({ WORKER_DATABASE_URL: fulfilment.url, AMQP_URL: broker.url }),
  ];
  const programs = [api, relay, worker];
  const waiting = (address: string) => new RegExp(`^waiting for (database|broker) ${address}\\b`, 'i');
  await api.said(waiting(shop.address));
  await relay.said(waiting(shop.address));
  await relay.said(waiting(broker.address));
  await worker.said(waiting(fulfilment.address));
  await worker.said(waiting(broker.address));
  expect(await Promise.all(programs.map((program) => program.probe('/readyz')))).toEqual([503, 503, 503]);
  expect(await Promise.all(programs.map((program) => program.probe('/livez')))).toEqual([200, 200, 200]);
  const refused = await send(api, 'POST', '/customers', { email: 'refused@example.com', name: 'Refused' });
  expect(refused.status).toBe(503);

  await Promise.all(servers.map((server) => server.pass()));
  await Promise.all(programs.map((program) => program.ready()));
  const id = await postCustomer(api, 'patient');
  await expect.poll(() => welcomed([id]), PATIENCE).toEqual([id]);
});

/** The relay's own user, on the shop alone. */
function relayUrl(address: string): string {
  const url = new URL(system.schemas.relayUrls.split(',')[0] ?? '');
  url.host = address;
  return url.href;
}

test.each(['SIGTERM', 'SIGINT'] as const)(
  '%s ends a process that still waits for its servers with 0',
  async (signal) => {
    const nowhere = {
      database: 'mysql://someone:secret@127.0.0.1:1/schema',
      broker: 'amqp://someone:secret@127.0.0.1:2',
    };
    const programs = [
      await system.api({ API_DATABASE_URL: nowhere.database }),
      system.relay({ RELAY_DATABASE_URLS: nowhere.database, AMQP_URL: nowhere.broker }),
      system.worker({ WORKER_DATABASE_URL: nowhere.database, AMQP_URL: nowhere.broker }),
    ];
    for (const program of programs) await program.said(/^waiting for database 127\.0\.0\.1:1/i);
    for (const program of programs.slice(1)) await program.said(/^waiting for broker 127\.0\.0\.1:2/i);
    for (const program of programs) program.kill(signal);
    expect(await Promise.all(programs.map(({ exited }) => exited))).toEqual([0, 0, 0]);
    expect(JSON.stringify(programs.map(({ lines }) => lines))).not.toContain('secret');
  },
);

test('customers posted while the broker is stopped are accepted, and delivered by the same processes when it is back', async () => {
  const broker: Broker = await createBroker();
  try {
    const settings = { AMQP_URL: broker.amqpUrl };
    const [api, relay, worker] = [await system.api(), system.relay(settings), system.worker(settings)];
    await Promise.all([relay.ready(), worker.ready()]);
    const before = await postCustomer(api, 'before');
    await expect.poll(() => welcomed([before]), PATIENCE).toEqual([before]);

    await broker.stop();
    await relay.said(/^waiting for broker/);
    await worker.said(/^waiting for broker/);
    const during = await Promise.all(Array.from({ length: 20 }, (_, index) => postCustomer(api, `during-${index}`)));
    expect(await rows(during)).toEqual([{ state: 'pending', attempts: 0 }]);
    const probes = (path: '/livez' | '/readyz') =>
      Promise.all([api, relay, worker].map((program) => program.probe(path)));
    expect(await probes('/readyz')).toEqual([200, 503, 503]);
    expect(await probes('/livez')).toEqual([200, 200, 200]);

    await broker.start();
    await expect.poll(() => welcomed(during), PATIENCE).toEqual(during.toSorted());
    await expect.poll(() => states(during), PATIENCE).toEqual(['published']);
    expect(await welcomed([before])).toEqual([before]);
    await expect.poll(() => probes('/readyz'), PATIENCE).toEqual([200, 200, 200]);
  } finally {
    await broker.remove();
  }
});
