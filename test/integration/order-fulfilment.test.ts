import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest';
import { launch, type Program } from '../support/program.ts';
import { type Order, playShop, type Shop } from '../support/shop.ts';
import { createSystem, type System } from '../support/system.ts';
import { trioOn } from '../support/trio.ts';

/** The real worker and the real relay; the test plays the api. */

const PATIENCE = { timeout: 45_000, interval: 50 };
const QUICK = { WORKER_RETRY_DELAYS_MS: '200,200,200,200,200', WORKER_STEP_TIMEOUT_MS: '2000' };
const PROCESSES = ['choreography', 'orchestration'] as const;

let system: System;
let shop: Shop;
// One worker and one relay for the whole file: `start` would end them with each test.
let programs: readonly Program[];
beforeAll(async () => {
  system = await createSystem(inject('servers'));
  const { worker, relay } = trioOn(system.schemas, system.vhost.amqpUrl, launch);
  programs = [worker(QUICK), relay()];
  await programs[0]?.ready();
  shop = await playShop(await system.vhost.channel());
});
afterAll(async () => {
  for (const program of programs) program.kill('SIGTERM');
  expect(await Promise.all(programs.map(({ exited }) => exited))).toEqual([0, 0]);
  await system.drop();
});
beforeEach(() => {
  shop.silent = false;
});

const outcome = (orderId: string) => expect.poll(() => shop.outcomeOf(orderId), PATIENCE);
const fulfilment = (sql: string, ...values: string[]) => system.fulfilment(sql, values);
const stockOf = (sku: string) => fulfilment('SELECT available, reserved FROM stock WHERE sku = ?', sku);
const paymentOf = (id: string) =>
  fulfilment('SELECT CAST(amount AS DOUBLE) AS amount, status FROM payments WHERE order_id = ?', id);
const atGateway = (id: string) =>
  fulfilment('SELECT kind, outcome FROM gateway_operations WHERE idempotency_key LIKE ? ORDER BY kind', `${id}:%`);
const sagaOf = (id: string) => fulfilment('SELECT state, reason FROM sagas WHERE id = ?', id);
const item = (sku: string, quantity: number) => ({ sku, quantity, unitPrice: 250 });
const stock = (sku: string, available: number) =>
  fulfilment('REPLACE INTO stock (sku, available) VALUES (?, ?)', sku, String(available));

describe.each(PROCESSES)('%s', (process) => {
  test('an order that can be had is paid and confirmed, and keeps its stock', async () => {
    await stock('A', 5);
    const id = shop.place({ process, items: [item('A', 2)] });
    await outcome(id).toBe('confirmed');
    expect(await stockOf('A')).toEqual([{ available: 3, reserved: 2 }]);
    expect(await paymentOf(id)).toEqual([{ amount: 500, status: 'processed' }]);
    if (process === 'orchestration')
      await expect.poll(() => sagaOf(id), PATIENCE).toMatchObject([{ state: 'completed' }]);
  });

  test('an order of which one item is short reserves nothing and costs nothing', async () => {
    await stock('A', 5);
    await stock('B', 1);
    const id = shop.place({ process, items: [item('A', 2), item('B', 2)] });
    const unknown = shop.place({ process, items: [item('A', 1), item('no-such-thing', 1)] });
    for (const each of [id, unknown]) {
      await outcome(each).toBe('out_of_stock');
      expect([await paymentOf(each), await atGateway(each)]).toEqual([[], []]);
    }
    expect(await stockOf('A')).toEqual([{ available: 5, reserved: 0 }]);
    expect(await stockOf('B')).toEqual([{ available: 1, reserved: 0 }]);
  });

  test('an order whose payment is declined gives its stock back', async () => {
    await stock('A', 5);
    const id = shop.place({ process, items: [item('A', 5)], token: 'tok_declined' });
    await outcome(id).toBe('payment_declined');
    await expect.poll(() => stockOf('A'), PATIENCE).toEqual([{ available: 5, reserved: 0 }]);
    expect(await paymentOf(id)).toEqual([{ amount: 1_250, status: 'declined' }]);
    if (process === 'orchestration') {
      await expect.poll(() => sagaOf(id), PATIENCE).toEqual([{ state: 'compensated', reason: 'payment_declined' }]);
    }
  });

  test('a charge that went through without an answer is found again, and not made twice', async () => {
    await stock('A', 5);
    const id = shop.place({ process, items: [item('A', 1)], token: 'tok_timeout' });
    await outcome(id).toBe('confirmed');
    expect(await atGateway(id)).toEqual([{ kind: 'charge', outcome: 'charged' }]);
    expect(await paymentOf(id)).toEqual([{ amount: 250, status: 'processed' }]);
  });
});

test('the same orders one after another end alike in both processes', async () => {
  const orders: Partial<Order>[] = [
    { items: [item('A', 2)] },
    { items: [item('A', 2), item('B', 1)], token: 'tok_declined' },
    { items: [item('A', 2), item('B', 2)] },
    { items: [item('A', 1)], token: 'tok_timeout' },
    { items: [item('A', 1), item('B', 1)] },
  ];
  const run = async (process: Order['process']) => {
    await stock('A', 5);
    await stock('B', 2);
    const outcomes: (string | undefined)[] = [];
    for (const order of orders) {
      const id = shop.place({ ...order, process });
      await outcome(id).toBeDefined();
      outcomes.push(shop.outcomeOf(id));
      // What was compensated is back before the next order asks for it.
      const held =
        "SELECT 1 FROM reservations r JOIN payments p USING (order_id) WHERE r.state = 'reserved' AND p.status = 'declined'";
      await expect.poll(() => fulfilment(held), PATIENCE).toEqual([]);
    }
    return { outcomes, stock: [await stockOf('A'), await stockOf('B')] };
  };
  const choreographed = await run('choreography');
  expect(choreographed.outcomes).toEqual(['confirmed', 'payment_declined', 'confirmed', 'confirmed', 'out_of_stock']);
  expect(await run('orchestration')).toEqual(choreographed);
});

describe('what comes late, again or first', () => {
  const replyTo = (id: string, step: string, direction: 'forward' | 'back') => ({
    saga: 'order-fulfilment',
    id,
    step,
    direction,
  });

  test('a step that is sent again is answered again and done once', async () => {
    shop.silent = true;
    await stock('A', 5);
    const id = shop.place({ process: 'orchestration', items: [item('A', 1)] });
    await expect.poll(() => shop.commandsOf(id).length, PATIENCE).toBeGreaterThan(1);
    const [first] = shop.commandsOf(id);
    expect(first).toMatchObject({ type: 'ConfirmOrder' });
    for (const { replyTo: again } of shop.commandsOf(id)) shop.answer(again, { kind: 'done' });
    await expect.poll(() => sagaOf(id), PATIENCE).toMatchObject([{ state: 'completed' }]);
    expect(await stockOf('A')).toEqual([{ available: 4, reserved: 1 }]);
    expect(await atGateway(id)).toEqual([{ kind: 'charge', outcome: 'charged' }]);
  });

  test('a confirmation that is refused takes back payment and stock, once', async () => {
    shop.silent = true;
    await stock('A', 5);
    const id = shop.place({ process: 'orchestration', items: [item('A', 2)] });
    await expect.poll(() => shop.commandsOf(id), PATIENCE).toMatchObject([{ type: 'ConfirmOrder' }]);
    const [confirm] = shop.commandsOf(id);
    if (confirm !== undefined) shop.answer(confirm.replyTo, { kind: 'refused', reason: 'timed_out' });
    await expect.poll(() => shop.commandsOf(id).at(-1), PATIENCE).toMatchObject({ type: 'RejectOrder' });
    // Late answers to what is undone by now.
    for (const step of ['stock', 'payment', 'confirmation'])
      shop.answer(replyTo(id, step, 'forward'), { kind: 'done' });
    const [, reject] = shop.commandsOf(id);
    if (reject !== undefined) shop.answer(reject.replyTo, { kind: 'done' });
    await expect.poll(() => sagaOf(id), PATIENCE).toEqual([{ state: 'compensated', reason: 'timed_out' }]);
    expect(await stockOf('A')).toEqual([{ available: 5, reserved: 0 }]);
    expect(await paymentOf(id)).toEqual([{ amount: 500, status: 'refunded' }]);
    expect(await atGateway(id)).toEqual([
      { kind: 'charge', outcome: 'charged' },
      { kind: 'refund', outcome: 'refunded' },
    ]);
  });

  test('a release and a refund that overtake what they undo leave it undone', async () => {
    await stock('A', 5);
    const orderId = randomUUID();
    const handled = async (id: string) =>
      await expect
        .poll(() => fulfilment('SELECT 1 FROM processed_messages WHERE message_id = ?', id), PATIENCE)
        .toHaveLength(1);
    const items = [{ sku: 'A', quantity: 1 }];
    await handled(shop.command('ReleaseStock', 'inventory', { replyTo: replyTo(orderId, 'stock', 'back'), orderId }));
    await handled(shop.command('RefundPayment', 'payments', { replyTo: replyTo(orderId, 'payment', 'back'), orderId }));
    await handled(
      shop.command('ReserveStock', 'inventory', { replyTo: replyTo(orderId, 'stock', 'forward'), orderId, items }),
    );
    const charge = {
      replyTo: replyTo(orderId, 'payment', 'forward'),
      orderId,
      amount: 100,
      payment: { token: 'tok_ok' },
    };
    await handled(shop.command('ChargePayment', 'payments', charge));
    expect(await stockOf('A')).toEqual([{ available: 5, reserved: 0 }]);
    expect(await atGateway(orderId)).toEqual([]);
    expect(await paymentOf(orderId)).toEqual([{ amount: 0, status: 'refunded' }]);
  });
});

test('orders end and stock and payments match them, though workers and relays are killed under them', async () => {
  const skus = ['S1', 'S2', 'S3', 'S4'];
  for (const sku of skus) await stock(sku, 25);
  const tokens = ['tok_ok', 'tok_ok', 'tok_ok', 'tok_declined', 'tok_timeout'];
  const orders = Array.from({ length: 80 }, (_, at) => {
    const items = [item(skus[at % 4] ?? '', 1 + (at % 3)), item(skus[(at + 1 + (at % 2)) % 4] ?? '', 1)];
    return shop.place({ items, token: tokens[at % 5] ?? '', process: PROCESSES[at % 2] ?? 'choreography' });
  });
  const ended = () => orders.filter((id) => shop.outcomeOf(id) !== undefined).length;
  const worker = system.worker(QUICK);
  const relay = system.relay();
  await worker.ready();
  for (const [victim, least] of [
    [worker, 5],
    [relay, 15],
  ] as const) {
    await expect.poll(ended, PATIENCE).toBeGreaterThan(least);
    victim.kill('SIGKILL');
  }
  await expect.poll(ended, { ...PATIENCE, timeout: 90_000 }).toBe(orders.length);
  const unsettled =
    "SELECT 1 FROM sagas WHERE ended_at IS NULL UNION ALL SELECT 1 FROM reservations r JOIN payments p USING (order_id) WHERE r.state = 'reserved' AND p.status <> 'processed'";
  await expect.poll(() => fulfilment(unsettled), PATIENCE).toEqual([]);
  const confirmed = orders.filter((id) => shop.outcomeOf(id) === 'confirmed');
  const ids = async (sql: string) => (await system.fulfilment(sql, [orders])).map((row) => String(row['order_id']));
  expect(await ids("SELECT order_id FROM payments WHERE status = 'processed' AND order_id IN (?) ORDER BY 1")).toEqual(
    confirmed.toSorted(),
  );
  expect(
    await ids("SELECT order_id FROM reservations WHERE state = 'reserved' AND order_id IN (?) ORDER BY 1"),
  ).toEqual(confirmed.toSorted());
  const held = `SELECT sku, CAST(SUM(quantity) AS DOUBLE) AS reserved FROM reserved_items JOIN reservations USING (order_id)
     WHERE state = 'reserved' AND sku LIKE 'S_' GROUP BY sku ORDER BY sku`;
  expect(
    await fulfilment("SELECT sku, CAST(reserved AS DOUBLE) AS reserved FROM stock WHERE sku LIKE 'S_' ORDER BY sku"),
  ).toEqual(await fulfilment(held));
  expect(await fulfilment("SELECT sku FROM stock WHERE sku LIKE 'S_' AND available + reserved <> 25")).toEqual([]);
}, 180_000);
