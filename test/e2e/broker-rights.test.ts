import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { rightsOf } from '../support/rights.ts';
import { placeOrder, readOrder } from '../support/shopping.ts';
import { createSystem, postCustomer, type System } from '../support/system.ts';

/** What docker-compose.yml lets each process do at the broker is enough for all that they do. */

const PATIENCE = { timeout: 60_000, interval: 50 };

let system: System;
beforeAll(async () => {
  system = await createSystem(inject('servers'));
});
afterAll(() => system?.drop());

test('orders by both processes, e-mails, sales and questions need no more rights than Compose gives', async () => {
  const as = async (name: string) => ({ AMQP_URL: await system.vhost.userWith(rightsOf(name)) });
  const api = await system.api(await as('api'));
  const [relay, worker] = [system.relay(await as('relay')), system.worker(await as('worker'))];
  await Promise.all([relay.ready(), worker.ready(), api.said(/^consuming$/)]);
  const customerId = await postCustomer(api, 'modest');
  const ids = [
    await placeOrder(api, { customerId, process: 'choreography' }),
    await placeOrder(api, { customerId, process: 'orchestration' }),
  ];
  for (const id of ids) await expect.poll(async () => (await readOrder(api, id)).status, PATIENCE).toBe('confirmed');
  const availability = async () => (await fetch(`${api.url}/availability?sku=SKU-1&quantity=1`)).status;
  await expect.poll(availability, PATIENCE).toBe(200);
  const rows = async () => {
    const [emails, sales] = await Promise.all([
      system.fulfilment('SELECT subject FROM emails ORDER BY subject'),
      system.fulfilment('SELECT sku FROM sales'),
    ]);
    return [emails.map(({ subject }) => subject), sales.map(({ sku }) => sku)];
  };
  const subjects = [
    'We have your order',
    'We have your order',
    'Welcome',
    'Your order is confirmed',
    'Your order is confirmed',
  ];
  await expect.poll(rows, PATIENCE).toEqual([subjects, ['SKU-1']]);
  // Nor does it take more to notice another service with a consumer of the same name.
  for (const { lines } of [api, worker]) {
    expect(lines.filter(({ msg }) => msg.includes('would not be noticed'))).toEqual([]);
  }
});
