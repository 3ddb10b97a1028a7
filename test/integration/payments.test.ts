import { ChargePayment, RefundPayment } from '@oncebox/contracts';
import { createInbox, type Inbox } from '@oncebox/inbox';
import type { Message, ReplyTo } from '@oncebox/message';
import { createPool, type Pool } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { payments } from '../../apps/worker/src/payments/consumer.ts';
import type { PaymentGateway } from '../../apps/worker/src/payments/gateway.ts';
import { simulatedGateway } from '../../apps/worker/src/payments/simulated-gateway.ts';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

/** A charge and a refund of one order that meet between the gateway and the database. */

let schemas: TestSchemas;
let pool: Pool;
let gateway: PaymentGateway;
beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  pool = createPool(schemas.fulfilment.url, { connections: 6 });
  gateway = simulatedGateway(pool);
});
afterAll(async () => {
  await pool.end();
  await schemas.drop();
});

const inboxWith = (given: Partial<PaymentGateway> = {}): Inbox =>
  createInbox(pool, payments(pool, { ...gateway, ...given }));

const replyTo = (id: string, direction: ReplyTo['direction']): ReplyTo => ({
  saga: 'order-fulfilment',
  id,
  step: 'payment',
  direction,
});
const charge = (orderId: string) =>
  ChargePayment.message({
    replyTo: replyTo(orderId, 'forward'),
    orderId,
    amount: 700,
    payment: { token: 'tok_ok' },
  });
const refund = (orderId: string) => RefundPayment.message({ replyTo: replyTo(orderId, 'back'), orderId });

async function handle(inbox: Inbox, { id, contract, payload }: Message): Promise<string> {
  const { kind } = await inbox.process({
    id,
    type: contract.type,
    version: contract.version,
    payload: JSON.stringify(payload),
    lineage: {},
    aggregateId: undefined,
    source: undefined,
    occurredAt: undefined,
    routingKey: contract.routingKey,
  });
  return kind;
}

async function booksOf(orderId: string) {
  const [operations] = await pool.query<RowDataPacket[]>(
    'SELECT kind, CAST(amount AS DOUBLE) AS amount FROM gateway_operations WHERE idempotency_key LIKE ? ORDER BY kind',
    [`${orderId}:%`],
  );
  const [ours] = await pool.query<RowDataPacket[]>('SELECT status FROM payments WHERE order_id = ?', [orderId]);
  return { gateway: operations, ours };
}
const bothWays = {
  gateway: [
    { kind: 'charge', amount: 700 },
    { kind: 'refund', amount: 700 },
  ],
  ours: [{ status: 'refunded' }],
};

test('an order that is refunded between its charge and the record of it is refunded at the gateway too', async () => {
  const orderId = uuidv7();
  const command = charge(orderId);
  const crossed = inboxWith({
    async charge(request, signal) {
      const answer = await gateway.charge(request, signal);
      expect(await handle(inboxWith(), refund(orderId))).toBe('handled');
      return answer;
    },
  });
  expect(await handle(crossed, command)).toBe('retry');
  expect(await handle(inboxWith(), command)).toBe('handled');
  expect(await booksOf(orderId)).toEqual(bothWays);
});

test('a refund that is asked for before its charge comes to the gateway takes it back there', async () => {
  const orderId = uuidv7();
  const command = charge(orderId);
  const crossed = inboxWith({
    async charge(request, signal) {
      expect(await handle(inboxWith(), refund(orderId))).toBe('handled');
      return await gateway.charge(request, signal);
    },
  });
  expect(await handle(crossed, command)).toBe('retry');
  expect(await handle(inboxWith(), command)).toBe('handled');
  expect(await booksOf(orderId)).toEqual(bothWays);
});

test('a refund that found nothing while the charge came in looks again', async () => {
  const orderId = uuidv7();
  const command = refund(orderId);
  const crossed = inboxWith({
    async refund(request, signal) {
      const nothing = await gateway.refund(request, signal);
      expect(await handle(inboxWith(), charge(orderId))).toBe('handled');
      return nothing;
    },
  });
  expect(await handle(crossed, command)).toBe('retry');
  expect(await handle(inboxWith(), command)).toBe('handled');
  expect(await booksOf(orderId)).toEqual(bothWays);
});

test('a refund that comes again gives back once', async () => {
  const orderId = uuidv7();
  for (const message of [charge(orderId), charge(orderId), refund(orderId), refund(orderId)]) {
    expect(await handle(inboxWith(), message)).toBe('handled');
  }
  expect(await booksOf(orderId)).toEqual(bothWays);
  const [answers] = await pool.query<RowDataPacket[]>('SELECT 1 FROM outbox WHERE payload LIKE ?', [`%${orderId}%`]);
  expect(answers).toHaveLength(4);
});
