import { crc32 } from 'node:zlib';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import type { Program } from '../support/processes.ts';
import { createSystem, postCustomer, type System, send } from '../support/system.ts';

/** From a request to its effects, through the three real processes. */

const PATIENCE = { timeout: 30_000, interval: 20 };
const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const TRACEPARENT = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';

let system: System;
beforeAll(async () => {
  system = await createSystem(inject('servers'));
});
afterAll(() => system?.drop());

const outboxOf = (customer: string) =>
  system.shop('SELECT * FROM outbox WHERE aggregateid = ? ORDER BY seq', [customer]);
const directoryOf = (customer: string) =>
  system.fulfilment('SELECT * FROM customer_directory WHERE customer_id = ?', [customer]);
const emailsOf = (customer: string) => system.fulfilment('SELECT * FROM emails WHERE customer_id = ?', [customer]);
const messagesOf = (program: Program, start: string) =>
  program.lines.filter(({ msg }) => msg.startsWith(start)).map(({ msg }) => msg);

test('a request becomes a row, a message, an inbox row for each consumer, and one effect of each', async () => {
  const channel = await system.vhost.channel();
  await channel.assertExchange('oncebox.events', 'topic', { durable: true });
  const { queue } = await channel.assertQueue('', { exclusive: true });
  await channel.bindQueue(queue, 'oncebox.events', '#');
  const [api, worker] = [await system.api(), system.worker()];
  await worker.ready();

  // The request.
  const given = { email: 'zoe@example.com', name: '  Zoë "Ω" 🦊 ' };
  const lineage = { 'x-correlation-id': 'order-4711', traceparent: TRACEPARENT };
  const response = await send(api, 'POST', '/customers', given, lineage);
  expect(response.status).toBe(201);
  expect(response.headers.get('etag')).toBe('"1"');
  expect(response.headers.get('x-correlation-id')).toBe('order-4711');
  const id = String(response.body['id']);
  expect(response.headers.get('location')).toBe(`/customers/${id}`);
  expect(id).toMatch(UUID_V7);
  const fields = { id, email: 'zoe@example.com', name: 'Zoë "Ω" 🦊', version: 1 };
  const createdAt = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  expect(response.body).toEqual({ ...fields, createdAt, updatedAt: response.body['createdAt'] });

  // The row, with no relay to take it.
  const payload = `{"customerId":"${id}","email":"zoe@example.com","name":"Zoë \\"Ω\\" 🦊","version":1}`;
  const row = {
    seq: expect.any(Number),
    id: expect.stringMatching(UUID_V7),
    aggregatetype: 'customer',
    aggregateid: id,
    type: 'CustomerCreated',
    version: 1,
    payload,
    headers: `{"correlationId":"order-4711","traceparent":"${TRACEPARENT}"}`,
    exchange: 'oncebox.events',
    routing_key: 'customer.created',
    delivery: 'required',
    when_parked: 'hold',
    partition_id: crc32(id) % 16,
    state: 'pending',
    held: 0,
    attempts: 0,
    last_error: null,
    available_at: expect.any(Date),
    created_at: expect.any(Date),
    published_at: null,
  };
  const [pending] = await outboxOf(id);
  expect(pending).toEqual(row);
  expect(await system.vhost.depth(queue)).toBe(0);

  // The message.
  const relay = system.relay();
  await expect.poll(() => system.vhost.depth(queue), PATIENCE).toBe(1);
  const message = await channel.get(queue, { noAck: true });
  const time: Date = pending?.['created_at'];
  const messageId: string = pending?.['id'];
  expect(message).toMatchObject({ fields: { exchange: 'oncebox.events', routingKey: 'customer.created' } });
  if (message === false) throw new Error('The queue is empty');
  expect(message.content.toString()).toBe(payload);
  expect(message.properties).toEqual({
    messageId,
    type: 'CustomerCreated',
    contentType: 'application/json',
    contentEncoding: undefined,
    deliveryMode: 2,
    timestamp: Math.floor(time.getTime() / 1_000),
    correlationId: 'order-4711',
    appId: system.schemas.shop.name,
    priority: undefined,
    replyTo: undefined,
    expiration: undefined,
    userId: undefined,
    clusterId: undefined,
    headers: {
      'cloudEvents:specversion': '1.0',
      'cloudEvents:id': messageId,
      'cloudEvents:source': system.schemas.shop.name,
      'cloudEvents:type': 'CustomerCreated',
      'cloudEvents:time': time.toISOString(),
      'cloudEvents:subject': id,
      schemaversion: 1,
      partition: String(crc32(id) % 16),
      traceparent: TRACEPARENT,
    },
  });

  // The row, once its message is confirmed.
  await relay.said(/^Published messages/);
  await expect
    .poll(() => outboxOf(id), PATIENCE)
    .toEqual([{ ...row, state: 'published', published_at: expect.any(Date) }]);

  // The inbox, in one transaction with the effects.
  await expect.poll(() => directoryOf(id), PATIENCE).toHaveLength(1);
  await expect.poll(() => emailsOf(id), PATIENCE).toHaveLength(1);
  const processed = await system.fulfilment('SELECT * FROM processed_messages ORDER BY consumer');
  const inboxRow = { message_id: Buffer.from(messageId), processed_at: expect.any(Date) };
  expect(processed).toEqual([
    { ...inboxRow, consumer: 'customer-directory' },
    { ...inboxRow, consumer: 'welcome-email' },
  ]);
  expect(await emailsOf(id)).toEqual([
    {
      id: expect.any(Number),
      message_id: messageId,
      customer_id: id,
      recipient: 'zoe@example.com',
      subject: 'Welcome',
      body: 'Welcome, Zoë "Ω" 🦊!',
      created_at: expect.any(Date),
    },
  ]);
  const entry = { customer_id: id, name: 'Zoë "Ω" 🦊', email: 'zoe@example.com', version: 1 };
  expect(await directoryOf(id)).toEqual([{ ...entry, updated_at: expect.any(Date) }]);

  // The log.
  expect(messagesOf(relay, 'Published')).toEqual([`Published messages: [${messageId}]`]);
  const handling = "Handling [CustomerCreated] - Payload: '[hidden]'";
  expect(messagesOf(worker, 'Handling')).toEqual([handling, handling]);
  for (const consumer of ['welcome-email', 'customer-directory']) {
    const lineageFields = { messageId, correlationId: 'order-4711', traceparent: TRACEPARENT };
    expect(worker.lines).toContainEqual(
      expect.objectContaining({ level: 'info', msg: handling, consumer, ...lineageFields }),
    );
  }
  expect(relay.lines.find(({ msg }) => msg.startsWith('Published'))).toMatchObject({
    level: 'info',
    schema: system.schemas.shop.name,
  });
});

test('a change is announced as CustomerUpdated and reaches the directory; a stale one is not announced', async () => {
  const [api, relay, worker] = [await system.api(), system.relay(), system.worker()];
  const id = await postCustomer(api, 'ada');
  const path = `/customers/${id}`;
  const change = { name: 'Ada Lovelace' };
  expect((await send(api, 'PATCH', path, change)).status).toBe(428);
  const changed = await send(api, 'PATCH', path, change, { 'if-match': '"1"' });
  expect(changed.status).toBe(200);
  expect(changed.headers.get('etag')).toBe('"2"');
  expect((await send(api, 'PATCH', path, { name: 'Late' }, { 'if-match': '"1"' })).status).toBe(412);

  const now = { customer_id: id, name: 'Ada Lovelace', email: 'ada@example.com', version: 2 };
  await expect.poll(() => directoryOf(id), PATIENCE).toEqual([{ ...now, updated_at: expect.any(Date) }]);
  await worker.said(/^Handling \[CustomerUpdated\] - Payload: '\[hidden\]'$/);
  const rows = await outboxOf(id);
  expect(rows.map(({ type, routing_key }) => [type, routing_key])).toEqual([
    ['CustomerCreated', 'customer.created'],
    ['CustomerUpdated', 'customer.updated'],
  ]);
  expect(rows[1]?.['payload']).toBe(
    `{"customerId":"${id}","email":"ada@example.com","name":"Ada Lovelace","version":2}`,
  );
  await expect.poll(() => emailsOf(id), PATIENCE).toHaveLength(1);
  await relay.said(new RegExp(`^Published messages: \\[.*${rows[1]?.['id']}.*\\]$`));
});

test('two apis in the middle of a switch write two versions of CustomerCreated, and the worker handles both', async () => {
  const worker = system.worker();
  const [before, after] = await Promise.all([system.api(), system.api({ API_CUSTOMER_CREATED_VERSION: '2' })]);
  await worker.ready();
  system.relay();
  const customers = [];
  for (const [index, api] of [before, after].entries()) {
    const given = { email: `switch-${index}@example.com`, name: 'Zoë' };
    const { body } = await send(api, 'POST', '/customers', given, { 'accept-language': 'de-AT, en' });
    customers.push(String(body['id']));
  }
  const [old = '', newer = ''] = customers;
  await expect.poll(() => emailsOf(old), PATIENCE).toMatchObject([{ body: 'Welcome, Zoë!' }]);
  await expect.poll(() => emailsOf(newer), PATIENCE).toMatchObject([{ body: 'Willkommen, Zoë!' }]);
  for (const id of customers) await expect.poll(() => directoryOf(id), PATIENCE).toHaveLength(1);
  expect([...(await outboxOf(old)), ...(await outboxOf(newer))].map(({ version }) => version)).toEqual([1, 2]);
});
