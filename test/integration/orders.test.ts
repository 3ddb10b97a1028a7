import {
  ConfirmOrder,
  PaymentFailed,
  PaymentProcessed,
  RejectOrder,
  StockReleased,
  StockReservationFailed,
  StockReserved,
} from '@oncebox/contracts';
import type { Channel } from 'amqplib';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { launch } from '../support/program.ts';
import { orderBody, placeOrder, readOrder, tell } from '../support/shopping.ts';
import { type Api, createSystem, postCustomer, type System, send } from '../support/system.ts';
import { trioOn } from '../support/trio.ts';

const PATIENCE = { timeout: 30_000, interval: 20 };
const NOW = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
const NOBODY = '01980a5e-5c00-7000-8000-000000000001';
const lineage = { correlationId: 'c-1' };

let system: System;
let channel: Channel;
let api: Api;
let customerId: string;

// One process for the whole file: `start` would end it with each test.
beforeAll(async () => {
  system = await createSystem(inject('servers'));
  channel = await system.vhost.channel();
  api = await trioOn(system.schemas, system.vhost.amqpUrl, launch).api();
  await api.said(/^consuming$/);
  customerId = await postCustomer(api, uuidv7());
});
afterAll(async () => {
  api?.kill('SIGTERM');
  expect(await api?.exited).toBe(0);
  await system?.drop();
});

const place = (process: 'choreography' | 'orchestration' = 'choreography', headers = {}) =>
  placeOrder(api, { customerId, process }, headers);
const typesOf = async (id: string) => (await readOrder(api, id)).timeline.map(({ type }) => type);
const announced = async (id: string) => {
  const rows = await system.shop('SELECT type, payload, headers FROM outbox WHERE aggregateid = ? ORDER BY seq', [id]);
  return rows.map(({ type, payload, headers }) => ({
    type,
    payload: JSON.parse(payload),
    headers: JSON.parse(headers),
  }));
};
const rowOf = async (id: string) => {
  const [row] = await system.shop('SELECT status, reason, version FROM orders WHERE id = ?', [id]);
  return row;
};

describe('POST /orders', () => {
  it('accepts the order, says where it is, and announces all that its readers need', async () => {
    const items = [
      { sku: 'SKU-2', quantity: 1 },
      { sku: 'SKU-1', quantity: 2 },
      { sku: 'SKU-2', quantity: 3 },
    ];
    const given = orderBody({ customerId, items });
    const { status, headers, body } = await send(api, 'POST', '/orders', given, { 'x-correlation-id': 'order-4711' });
    expect(status).toBe(202);
    const id = String(body['id']);
    expect(body).toEqual({ id, status: 'placed', totalAmount: 4 * 499 + 2 * 249 });
    expect(headers.get('location')).toBe(`/orders/${id}`);

    const lines = [
      { sku: 'SKU-2', quantity: 4, unitPrice: 499 },
      { sku: 'SKU-1', quantity: 2, unitPrice: 249 },
    ];
    const { shippingAddress, payment } = given;
    const order = { customerId, process: 'choreography', items: lines, totalAmount: 2494, shippingAddress };
    expect(await announced(id)).toEqual([
      { type: 'OrderPlaced', payload: { orderId: id, payment, ...order }, headers: { correlationId: 'order-4711' } },
    ]);
    const seen = await fetch(`${api.url}/orders/${id}`);
    expect(seen.headers.get('etag')).toBe('"1"');
    const timeline = [{ type: 'OrderPlaced', at: NOW, correlationId: 'order-4711' }];
    const placed = { id, status: 'placed', version: 1, placedAt: NOW, updatedAt: NOW };
    expect(await seen.json()).toEqual({ ...placed, ...order, timeline });
    expect(await rowOf(id)).toEqual({ status: 'placed', reason: null, version: 1 });
  });

  it('names every field that is wrong, and what it does not know, and writes nothing', async () => {
    const [before] = await system.shop('SELECT COUNT(*) AS n FROM events');
    const refused = async (body: object) => {
      const answer = await send(api, 'POST', '/orders', body);
      expect(answer.status).toBe(422);
      const errors: { pointer: string; field: string }[] = Object(answer.body)['errors'];
      return errors.map(({ pointer, field }) => [pointer, field]);
    };
    const good = orderBody({ customerId });
    expect(await refused({ ...good, items: [{ sku: 'SKU-1', quantity: 0 }], colour: 'red' })).toEqual([
      ['#/items/0/quantity', 'items/0/quantity'],
      ['#/colour', 'colour'],
    ]);
    expect(await refused({ ...good, items: [] })).toEqual([['#/items', 'items']]);
    expect(await refused({})).toEqual(
      ['customerId', 'items', 'shippingAddress', 'payment'].map((field) => [`#/${field}`, field]),
    );
    const unknown = { ...good, customerId: NOBODY, items: [...good.items, { sku: 'SKU-21', quantity: 1 }] };
    expect(await refused(unknown)).toEqual([
      ['#/items/1/sku', 'items/1/sku'],
      ['#/customerId', 'customerId'],
    ]);
    expect(await system.shop('SELECT COUNT(*) AS n FROM events')).toEqual([before]);
  });

  it('takes effect once for an Idempotency-Key, however often it is sent', async () => {
    const key = { 'idempotency-key': `"${uuidv7()}"` };
    const first = await place('choreography', key);
    expect(await place('choreography', key)).toBe(first);
    expect(await announced(first)).toHaveLength(1);
  });

  it('needs no broker', async () => {
    const alone = await system.api({ AMQP_URL: 'amqp://a:b@127.0.0.1:1' });
    await alone.ready();
    const id = await placeOrder(alone, { customerId });
    expect(await readOrder(alone, id)).toMatchObject({ status: 'placed' });
    alone.kill('SIGTERM');
    expect(await alone.exited).toBe(0);
  });
});

describe('GET /orders/:id', () => {
  it('answers 304 to who has this version, and 404 for what is no order', async () => {
    const id = await place();
    const again = await fetch(`${api.url}/orders/${id}`, { headers: { 'if-none-match': '"1"' } });
    expect(again.status).toBe(304);
    for (const other of [NOBODY, 'x', customerId]) {
      const response = await fetch(`${api.url}/orders/${other}`);
      expect(await response.json()).toMatchObject({ status: 404, type: 'urn:oncebox:problem:no-such-order' });
    }
  });
});

describe('an order that its services lead', () => {
  const about = (orderId: string) => ({ orderId, customerId, amount: 498, payment: { token: 'tok_ok' } });

  it('is confirmed by its payment, and its timeline says what led there', async () => {
    const id = await place();
    const reserved = StockReserved.message(about(id), lineage);
    tell(channel, reserved);
    await expect.poll(() => typesOf(id), PATIENCE).toEqual(['OrderPlaced', 'StockReserved']);
    const paid = PaymentProcessed.message({ orderId: id, amount: 498 }, lineage);
    tell(channel, paid);
    await expect.poll(() => readOrder(api, id), PATIENCE).toMatchObject({ status: 'confirmed', version: 4 });
    const { timeline } = await readOrder(api, id);
    expect(timeline.slice(1)).toEqual([
      { type: 'StockReserved', correlationId: 'c-1', causationId: reserved.id },
      { type: 'PaymentProcessed', correlationId: 'c-1', causationId: paid.id },
      { type: 'OrderConfirmed', correlationId: 'c-1', causationId: paid.id },
    ]);
    expect(await rowOf(id)).toEqual({ status: 'confirmed', reason: null, version: 4 });
    expect((await announced(id)).slice(1)).toEqual([
      {
        type: 'OrderConfirmed',
        payload: { orderId: id, customerId, timestamp: NOW },
        headers: { correlationId: 'c-1', causationId: paid.id },
      },
    ]);
  });

  it.each([
    { of: 'stock', reason: 'out_of_stock' as const, contract: StockReservationFailed },
    { of: 'payment', reason: 'payment_declined' as const, contract: PaymentFailed },
  ])('is rejected for want of $of, once, and stays so', async ({ reason, contract }) => {
    const id = await place();
    const failed = contract.message({ orderId: id, reason }, lineage);
    tell(channel, failed);
    await expect.poll(() => readOrder(api, id), PATIENCE).toMatchObject({ status: 'rejected', reason });
    // The same copy, a late contradiction, and the compensation: what is told is noted, and decides nothing any more.
    tell(channel, failed);
    tell(channel, PaymentProcessed.message({ orderId: id, amount: 498 }));
    tell(channel, StockReleased.message({ orderId: id }));
    await expect.poll(() => typesOf(id), PATIENCE).toContain('StockReleased');
    await expect.poll(() => typesOf(id), PATIENCE).toHaveLength(5);
    expect((await typesOf(id)).filter((type) => type === contract.type)).toHaveLength(1);
    expect(await readOrder(api, id)).toMatchObject({ status: 'rejected', reason });
    expect((await announced(id)).map(({ type }) => type)).toEqual(['OrderPlaced', 'OrderRejected']);
  });

  it('has a message about no order of ours given up at once', async () => {
    const stray = StockReleased.message({ orderId: NOBODY });
    tell(channel, stray);
    await expect
      .poll(() => system.shop('SELECT error_class FROM dead_letters WHERE message_id = ?', [stray.id]), PATIENCE)
      .toEqual([{ error_class: 'UnknownOrderError' }]);
  });
});

describe('an order that a saga leads', () => {
  const replyTo = (id: string) => ({ saga: 'order-fulfilment', id, step: 'confirm', direction: 'forward' as const });
  const replies = async (sagaId: string) => {
    const rows = await system.shop(
      "SELECT payload FROM outbox WHERE aggregatetype = 'saga' AND aggregateid = ? ORDER BY seq",
      [sagaId],
    );
    return rows.map(({ payload }) => JSON.parse(payload).outcome);
  };

  it('is ended by its commands alone, once, and each is answered', async () => {
    const id = await place('orchestration');
    const sagaId = uuidv7();
    tell(channel, PaymentProcessed.message({ orderId: id, amount: 498 }));
    await expect.poll(() => typesOf(id), PATIENCE).toEqual(['OrderPlaced', 'PaymentProcessed']);
    expect(await readOrder(api, id)).toMatchObject({ status: 'placed' });

    tell(channel, ConfirmOrder.message({ replyTo: replyTo(sagaId), orderId: id }, lineage));
    await expect.poll(() => replies(sagaId), PATIENCE).toEqual([{ kind: 'done' }]);
    tell(channel, ConfirmOrder.message({ replyTo: replyTo(sagaId), orderId: id }, lineage));
    await expect.poll(() => replies(sagaId), PATIENCE).toEqual([{ kind: 'done' }, { kind: 'done' }]);
    const reason = 'out_of_stock' as const;
    tell(channel, RejectOrder.message({ replyTo: replyTo(sagaId), orderId: id, reason }, lineage));
    const refused = { kind: 'refused', reason: 'order_is_confirmed' };
    await expect.poll(() => replies(sagaId), PATIENCE).toEqual([{ kind: 'done' }, { kind: 'done' }, refused]);
    expect(await typesOf(id)).toEqual(['OrderPlaced', 'PaymentProcessed', 'OrderConfirmed']);
  });

  it('is rejected with the reason that the saga gives', async () => {
    const id = await place('orchestration');
    const reason = 'payment_declined' as const;
    tell(channel, RejectOrder.message({ replyTo: replyTo(uuidv7()), orderId: id, reason }, lineage));
    await expect.poll(() => readOrder(api, id), PATIENCE).toMatchObject({ status: 'rejected', reason });
  });
});

it('its consumer is registered, so that verify counts on it', async () => {
  const [registered] = await system.shop("SELECT COUNT(*) AS n FROM consumers WHERE consumer = 'orders'");
  expect(registered).toEqual({ n: 7 });
});
