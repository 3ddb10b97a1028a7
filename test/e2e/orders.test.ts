import { tmpdir } from 'node:os';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, beforeEach, expect, inject, test } from 'vitest';
import { startOncebox } from '../support/oncebox.ts';
import { checkOrders } from '../support/order-invariants.ts';
import type { Program } from '../support/processes.ts';
import { seeded } from '../support/seeded.ts';
import { placeOrder, readOrder, type Wish } from '../support/shopping.ts';
import { type Api, createSystem, postCustomer, type System } from '../support/system.ts';

/** Orders from their request to their end, through the three real processes, by both ways of leading them there. */

const PATIENCE = { timeout: 90_000, interval: 50 };
const QUICK = { WORKER_RETRY_DELAYS_MS: '200,500,1000,2000,5000,5000,5000' };
const PROCESSES = ['choreography', 'orchestration'] as const;

let system: System;
beforeAll(async () => {
  system = await createSystem(inject('servers'));
});
afterAll(() => system?.drop());
beforeEach(async () => {
  await onFulfilment('UPDATE stock SET available = 1000, reserved = 0');
});

/** As the administrator; the statement may write. */
const onFulfilment = (sql: string, values: readonly (string | readonly string[])[] = []) =>
  system.fulfilment(sql, values);

type Order = Pick<Wish, 'items' | 'token'>;

/** The same orders for the same seed. They want more than there is, and some cannot pay. */
function wishes(count: number, random: () => number, firstSku: number): Order[] {
  const below = (most: number) => Math.floor(random() * most);
  return Array.from({ length: count }, () => {
    const skus = new Set(Array.from({ length: 1 + below(2) }, () => `SKU-${firstSku + below(4)}`));
    const chance = random();
    const token = chance < 0.7 ? 'tok_ok' : chance < 0.9 ? 'tok_declined' : 'tok_timeout';
    return { items: Array.from(skus, (sku) => ({ sku, quantity: 1 + below(4) })), token };
  });
}

/** Waits for the end of an order, and for what must be undone to be undone. */
async function endOf(api: Api, id: string): Promise<string> {
  const ended = async () => {
    const { status, reason } = await readOrder(api, id);
    const [reservation] = await onFulfilment('SELECT state FROM reservations WHERE order_id = ?', [id]);
    if (status === 'confirmed') return 'confirmed';
    if (reason === 'payment_declined' && reservation?.['state'] !== 'released') return 'placed';
    return reason ?? status;
  };
  await expect.poll(ended, PATIENCE).not.toBe('placed');
  return await ended();
}

const waiting = async (): Promise<number> => {
  const counts = [system.shop, system.fulfilment].map(async (select) => {
    const [row] = await select("SELECT COUNT(*) AS n FROM outbox WHERE state <> 'published'");
    return Number(row?.['n']);
  });
  return (await Promise.all(counts)).reduce((sum, n) => sum + n, 0);
};

async function expectVerified(): Promise<void> {
  await expect.poll(waiting, PATIENCE).toBe(0);
  const env = {
    RELAY_DATABASE_URLS: system.schemas.relayUrls,
    API_DATABASE_URL: system.schemas.shop.url,
    WORKER_DATABASE_URL: system.schemas.fulfilment.url,
  };
  const verify = () => startOncebox(['verify'], env, tmpdir()).ended;
  // The last messages may be on their way to the consumers that have no effect to wait for.
  await expect.poll(async () => (await verify()).code, { timeout: 60_000, interval: 1_000 }).toBe(0);
}

test('fed the same orders one after another, both processes come to the same outcomes', {
  timeout: 240_000,
}, async () => {
  const [api, worker] = [await system.api(), system.worker(QUICK)];
  system.relay();
  await Promise.all([worker.ready(), api.said(/^consuming$/)]);
  const customerId = await postCustomer(api, uuidv7());
  await onFulfilment('UPDATE stock SET available = 8');
  const ids: string[] = [];
  const outcomes: string[][] = [];
  for (const [index, process] of PROCESSES.entries()) {
    const ended: string[] = [];
    for (const wish of wishes(12, seeded(7), 1 + index * 10)) {
      const id = await placeOrder(api, { customerId, process, ...wish });
      ids.push(id);
      ended.push(await endOf(api, id));
    }
    outcomes.push(ended);
  }
  expect(outcomes[1]).toEqual(outcomes[0]);
  expect(new Set(outcomes[0])).toEqual(new Set(['confirmed', 'out_of_stock', 'payment_declined']));
  const { rejected } = await checkOrders(system, ids, 8);
  expect(new Set(Object.keys(rejected))).toEqual(new Set(['out_of_stock', 'payment_declined']));
  await expectVerified();
});

test('every order ends, and stock and payments match, though every process is killed and the broker cuts connections', {
  timeout: 300_000,
}, async () => {
  let api = await system.api();
  let relay = system.relay();
  let worker = system.worker(QUICK);
  await Promise.all([worker.ready(), api.said(/^consuming$/)]);
  const customerId = await postCustomer(api, uuidv7());
  await onFulfilment('UPDATE stock SET available = 30');

  const ids: string[] = [];
  const random = seeded(11);
  const queue = wishes(90, random, 1).map((wish, n) => ({ wish, process: PROCESSES[n % 2] ?? 'choreography' }));
  /** Again under the same key, until there is an answer: an api that was killed may have taken the order or not. */
  async function insist(wish: Wish): Promise<string> {
    const key = { 'idempotency-key': `"${uuidv7()}"` };
    let id = '';
    const attempt = async () => {
      id = await placeOrder(api, wish, key).catch(() => '');
      return id;
    };
    await expect.poll(attempt, PATIENCE).not.toBe('');
    return id;
  }
  const buyer = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      ids.push(await insist({ customerId, process: next.process, ...next.wish }));
    }
  };
  const placed = (count: number) => expect.poll(() => ids.length, PATIENCE).toBeGreaterThanOrEqual(count);
  const killed = async (program: Program) => {
    program.kill('SIGKILL');
    await program.exited;
  };
  const trouble = async () => {
    await placed(15);
    await killed(worker);
    worker = system.worker(QUICK);
    await placed(30);
    await killed(relay);
    relay = system.relay();
    await placed(45);
    await killed(api);
    api = await system.api({ API_PORT: new URL(api.url).port }); // the worker fetches orders there
    await placed(60);
    await system.vhost.closeConnections('worker consuming');
    await placed(75);
    await killed(worker);
    worker = system.worker(QUICK);
  };
  await Promise.all([trouble(), ...Array.from({ length: 6 }, buyer)]);

  const unended = async () => {
    const [row] = await system.shop("SELECT COUNT(*) AS n FROM orders WHERE status = 'placed'");
    return Number(row?.['n']);
  };
  await expect.poll(unended, PATIENCE).toBe(0);
  await expect.poll(waiting, PATIENCE).toBe(0);
  expect(await system.fulfilment('SELECT consumer, type, reason FROM dead_letters')).toEqual([]);
  await expectVerified();
  const { rejected } = await checkOrders(system, ids, 30);
  expect(new Set(Object.keys(rejected))).toEqual(new Set(['out_of_stock', 'payment_declined']));
});
