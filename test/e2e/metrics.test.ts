import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { metric, metricNames } from '../support/metrics.ts';
import { startProxy } from '../support/proxy.ts';
import { createSystem, postCustomer, type System, send } from '../support/system.ts';

/** What each process shows tells what has happened, while it is so and no longer. */

const PATIENCE = { timeout: 40_000, interval: 100 };

let system: System;
beforeAll(async () => {
  system = await createSystem(inject('servers'));
});
afterAll(() => system?.drop());

/** What the alert rules and the dashboard ask for. */
const named = [
  ...new Set(
    ['alerts.yml', 'grafana/dashboards/oncebox.json'].flatMap(
      (file) =>
        readFileSync(join(import.meta.dirname, '../../deploy/observability', file), 'utf8').match(
          /\b(oncebox|nodejs|process)_[a-z0-9_]+/g,
        ) ?? [],
    ),
  ),
];

const readiness = async (program: { page(path: '/readyz'): Promise<string> }) =>
  JSON.parse(await program.page('/readyz'));

test('metrics and readiness tell which of worker, broker and database is away, and that it is back', async () => {
  const [database, broker] = await Promise.all([
    startProxy(system.schemas.relayUrls.split(',')[0] ?? ''),
    startProxy(system.vhost.amqpUrl),
  ]);
  const schema = system.schemas.shop.name;
  const [api, relay] = [await system.api(), system.relay({ RELAY_DATABASE_URLS: database.url, AMQP_URL: broker.url })];
  let worker = system.worker();
  await Promise.all([relay.ready(), worker.ready()]);

  const customer = await postCustomer(api, 'first');
  const handled = () =>
    metric(worker, 'oncebox_consumer_messages_total', { consumer: 'welcome-email', result: 'handled' });
  await expect.poll(handled, PATIENCE).toBe(1);
  expect(await metric(relay, 'oncebox_relay_messages_total', { schema, result: 'confirmed' })).toBe(1);
  expect(await metric(worker, 'oncebox_consumer_latency_seconds_count', { consumer: 'welcome-email' })).toBe(1);
  expect(await metric(worker, 'oncebox_consumer_consuming', { consumer: 'welcome-email' })).toBe(1);

  // For the gauges of sagas and of rebuilds: the relay drains the shop alone, so this saga does not end.
  const order = {
    customerId: customer,
    items: [{ sku: 'SKU-1', quantity: 1 }],
    shippingAddress: '1 Main Street',
    payment: { token: 'tok_ok' },
    process: 'orchestration',
  };
  expect((await send(api, 'POST', '/orders', order)).status).toBe(202);
  await system.shop("INSERT INTO projection_rebuilds (name, total) VALUES ('orders', 1)");
  worker.kill('SIGTERM');
  await worker.exited;
  await postCustomer(api, 'second');
  worker = system.worker();
  await worker.ready();
  await expect.poll(handled, PATIENCE).toBe(1);

  await broker.refuse();
  await expect
    .poll(() => readiness(relay), PATIENCE)
    .toMatchObject({ ready: false, checks: { database: 'ok', broker: 'CONNECTING' } });
  await postCustomer(api, 'third');
  const pending = () => metric(relay, 'oncebox_outbox_messages', { schema, type: 'CustomerCreated', state: 'pending' });
  await expect.poll(pending, PATIENCE).toBe(1);
  // With a backlog, an unfinished saga and a rebuild, everything that rules and dashboard name is shown by somebody.
  const shown = new Set<string>();
  const missing = async () => {
    for (const name of (await Promise.all([api, relay, worker].map(metricNames))).flat()) shown.add(name);
    return named.filter((name) => !shown.has(name));
  };
  await expect.poll(missing, PATIENCE).toEqual([]);
  expect(await metric(relay, 'oncebox_outbox_oldest_seconds', { schema, type: 'CustomerCreated' })).toBeGreaterThan(0);
  expect(await metric(relay, 'oncebox_ready', { check: 'broker' })).toBe(0);
  expect(await metric(relay, 'oncebox_ready', { check: 'database' })).toBe(1);
  expect(await metric(relay, 'oncebox_broker_connection', { state: 'connecting' })).toBe(1);
  await broker.pass();
  await expect.poll(pending, PATIENCE).toBeUndefined();
  expect(await metric(relay, 'oncebox_ready', { check: 'broker' })).toBe(1);

  await database.refuse();
  await expect.poll(() => readiness(relay), PATIENCE).toMatchObject({ ready: false, checks: { broker: 'ok' } });
  expect(await metric(relay, 'oncebox_ready', { check: 'database' })).toBe(0);
  // What was read before the outage is not shown as if it were true, and what is shown is how old that is.
  await expect.poll(() => metric(relay, 'oncebox_outbox_capped', { schema }), PATIENCE).toBeUndefined();
  expect(await metric(relay, 'oncebox_reading_age_seconds', { schema })).toBeGreaterThan(0);
  expect(await metric(relay, 'oncebox_relay_failures_total', { schema, reason: 'database away' })).toBeGreaterThan(0);
  await database.pass();
  await expect.poll(() => metric(relay, 'oncebox_outbox_capped', { schema }), PATIENCE).toBe(0);
  await relay.ready();

  // A server that is frozen refuses nothing.
  database.blackhole('toClient');
  await expect
    .poll(() => readiness(relay), PATIENCE)
    .toMatchObject({ ready: false, checks: { database: 'ETIMEDOUT', broker: 'ok' } });
  await database.pass();
  await relay.ready();
}, 150_000);
