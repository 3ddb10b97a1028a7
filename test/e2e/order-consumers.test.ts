import { OrderPlaced } from '@oncebox/contracts';
import { createInbox, defineConsumer, on } from '@oncebox/inbox';
import { createPool } from '@oncebox/mysql';
import { connectBroker, startConsumer } from '@oncebox/rabbitmq';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, expect, inject, test, vi } from 'vitest';
import { launch, type Program } from '../support/program.ts';
import { placeOrder, readOrder } from '../support/shopping.ts';
import { type Api, createSystem, postCustomer, type System } from '../support/system.ts';
import { trioOn } from '../support/trio.ts';

/** Publish and subscribe: OrderPlaced goes to several consumers, and none of them knows of the others. */

const PATIENCE = { timeout: 60_000, interval: 50 };
const RETRIES = Array.from({ length: 60 }, () => '500').join(',');

let system: System;
let api: Api;
// The same processes for the whole file.
let programs: readonly Program[] = [];
let customerId: string;
beforeAll(async () => {
  system = await createSystem(inject('servers'));
  const trio = trioOn(system.schemas, system.vhost.amqpUrl, launch);
  api = await trio.api();
  const worker = trio.worker({ WORKER_RETRY_DELAYS_MS: RETRIES });
  programs = [api, trio.relay(), worker];
  await Promise.all([worker.ready(), api.said(/^consuming$/)]);
  customerId = await postCustomer(api, 'buyer');
  // Who is not in the directory yet gets the e-mail of an order by a retry, and so perhaps after that of its confirmation.
  const heardOf = () => system.fulfilment('SELECT 1 FROM customer_directory WHERE customer_id = ?', [customerId]);
  await vi.waitFor(async () => expect(await heardOf()).toHaveLength(1), PATIENCE);
});
afterAll(async () => {
  for (const program of programs) program.kill('SIGTERM');
  expect(await Promise.all(programs.map(({ exited }) => exited))).toEqual(programs.map(() => 0));
  await system?.drop();
});

const statusOf = async (id: string) => (await readOrder(api, id)).status;
const soldOf = async (sku: string) => {
  const columns = ['orders', 'quantity', 'amount'].map((name) => `CAST(${name} AS DOUBLE) AS ${name}`);
  const [row] = await system.fulfilment(`SELECT ${columns.join(', ')} FROM sales WHERE sku = ?`, [sku]);
  return row;
};
/** Of one order: its messages are known by their key. */
async function emailsOf(id: string) {
  const messages = await system.shop('SELECT id FROM outbox WHERE aggregateid = ?', [id]);
  const found = await system.fulfilment(
    'SELECT customer_id, recipient, subject, body FROM emails WHERE message_id IN (?) ORDER BY id',
    [messages.map((row) => String(row['id']))],
  );
  return found.map((row) => ({ ...row }));
}
const subjectsOf = async (id: string) => (await emailsOf(id)).map((row) => Reflect.get(row, 'subject'));

test('an order is in the sales, and its customer is told of it and of its confirmation, which is fetched from the api', async () => {
  const items = [
    { sku: 'SKU-1', quantity: 2 },
    { sku: 'SKU-2', quantity: 1 },
  ];
  const id = await placeOrder(api, { customerId, items });
  const again = await placeOrder(api, { customerId, items: [{ sku: 'SKU-1', quantity: 1 }] });
  await expect.poll(() => subjectsOf(id), PATIENCE).toEqual(['We have your order', 'Your order is confirmed']);
  await expect.poll(() => subjectsOf(again), PATIENCE).toHaveLength(2);
  const [, confirmation] = await emailsOf(id);
  expect(confirmation).toMatchObject({
    customer_id: customerId,
    recipient: 'buyer@example.com',
    body: 'Hello The buyer,\n\n2 × SKU-1\n1 × SKU-2\nTotal: 9.97',
  });
  await api.said(/^GET \/orders\/:id 200/);
  await expect.poll(() => soldOf('SKU-1'), PATIENCE).toEqual({ orders: 2, quantity: 3, amount: 3 * 249 });
  expect(await soldOf('SKU-2')).toEqual({ orders: 1, quantity: 1, amount: 499 });
});

test('one consumer of a message fails while the others finish, and catches up when it can', async () => {
  await system.fulfilment('RENAME TABLE sales TO sales_away');
  const id = await placeOrder(api, { customerId, items: [{ sku: 'SKU-3', quantity: 4 }] });
  await expect.poll(() => statusOf(id), PATIENCE).toBe('confirmed');
  await expect.poll(() => subjectsOf(id), PATIENCE).toHaveLength(2);
  await expect.poll(() => system.vhost.depth('sales.retry.500ms'), PATIENCE).toBe(1);
  await system.fulfilment('RENAME TABLE sales_away TO sales');
  await expect.poll(() => soldOf('SKU-3'), PATIENCE).toMatchObject({ orders: 1, quantity: 4 });
  expect(await subjectsOf(id)).toHaveLength(2);
});

test('a consumer that is added later gets what is announced from then on, and no producer is changed or told', async () => {
  await placeOrder(api, { customerId });
  const heard: string[] = [];
  const loyalty = defineConsumer({
    name: 'loyalty',
    handlers: [on(OrderPlaced, { handle: async (_tx, { payload }) => void heard.push(payload.orderId) })],
  });
  const logger = { info: () => undefined, warn: () => undefined, error: () => undefined };
  const pool = createPool(system.schemas.fulfilment.url, { connections: 2 });
  const broker = connectBroker({ urls: [system.vhost.amqpUrl], name: 'loyalty', logger });
  const consumer = startConsumer({ broker, inbox: createInbox(pool, loyalty), logger });
  try {
    await expect.poll(() => consumer.consuming, PATIENCE).toBe(true);
    const id = await placeOrder(api, { customerId });
    await expect.poll(() => heard, PATIENCE).toEqual([id]);
    await expect.poll(() => statusOf(id), PATIENCE).toBe('confirmed');
    await expect.poll(() => subjectsOf(id), PATIENCE).toHaveLength(2);
  } finally {
    await consumer.stop();
    await broker.close();
    await pool.end();
  }
});

test('a confirmation of an order that the api does not know is a dead letter at once', async () => {
  const messageId = uuidv7();
  const payload = { orderId: uuidv7(), customerId, timestamp: new Date().toISOString() };
  const channel = await system.vhost.channel();
  const options = { messageId, type: 'OrderConfirmed', persistent: true, headers: { schemaversion: 1 } };
  channel.publish('oncebox.events', 'order.confirmed', Buffer.from(JSON.stringify(payload)), options);
  const dead = () => system.fulfilment('SELECT consumer, reason, attempts FROM dead_letters');
  const letter = { consumer: 'order-emails', reason: 'OrderNotFoundError', attempts: 1 };
  await expect.poll(dead, PATIENCE).toEqual([letter]);
});
