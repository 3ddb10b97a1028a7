import { createServer } from 'node:http';
import { CustomerCreated } from '@oncebox/contracts';
import { createInbox, defineConsumer, on, onBatch } from '@oncebox/inbox';
import { causedBy, defineMessage, defineRequest } from '@oncebox/message';
import { createPool, type Pool, transaction } from '@oncebox/mysql';
import { createRelay, outbox } from '@oncebox/outbox';
import {
  type Broker,
  connectBroker,
  createPublisher,
  createRequester,
  startConsumer,
  startResponder,
} from '@oncebox/rabbitmq';
import { createLogger, type Listening, listen } from '@oncebox/service';
import { SpanKind, trace } from '@opentelemetry/api';
import type { ResultSetHeader, RowDataPacket } from 'mysql2/promise';
import { afterAll, afterEach, beforeAll, expect, inject, test } from 'vitest';
import { z } from 'zod';
import { createApp } from '../../apps/api/src/app.ts';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';
import { idOf, spanOf, spans, useSpans } from '../support/spans.ts';
import { createVhost, type Vhost } from '../support/vhost.ts';

/** The parent of every span on a message's way, with the real servers and everything of ours in this process. */

const PATIENCE = { timeout: 30_000, interval: 20 };
const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined };
const CALLER = { trace: '0af7651916cd43dd8448eb211c80319c', span: 'b7ad6b7169203331' };
const TRACEPARENT = `00-${CALLER.trace}-${CALLER.span}-01`;

const Greeted = defineMessage({
  type: 'Greeted',
  version: 1,
  aggregateType: 'greeting',
  aggregateId: ({ id }) => id,
  routingKey: 'greeting.greeted',
  payload: z.strictObject({ id: z.string() }),
});
/** Nobody listens to it. */
const Noted = defineMessage({
  ...Greeted,
  payload: Greeted.schema,
  type: 'Noted',
  routingKey: 'greeting.noted',
  delivery: 'optional',
});

let schemas: TestSchemas;
let vhost: Vhost;
let shop: Pool;
let fulfilment: Pool;
let http: Listening;
let broker: Broker;
const stops: (() => Promise<unknown>)[] = [];

useSpans();
beforeAll(async () => {
  [schemas, vhost] = await Promise.all([createSchemas(inject('servers')), createVhost(inject('servers'))]);
  shop = createPool(schemas.shop.url, { connections: 4 });
  fulfilment = createPool(schemas.fulfilment.url, { connections: 10 });
  const logger = createLogger({ name: 'api', level: 'silent', format: 'json' });
  http = await listen(createServer(createApp({ pool: shop, logger })), { port: 0, host: '127.0.0.1' });
  broker = connectBroker({ urls: [vhost.amqpUrl], name: 'traced', logger: quiet });
  const publisher = createPublisher({ urls: [vhost.amqpUrl], name: 'relay', logger: quiet });
  const backoff = { firstMs: 50, mostMs: 50 };
  const relay = createRelay({ databaseUrls: schemas.relayUrls.split(','), publisher, logger: quiet, backoff });
  relay.start();
  stops.push(
    () => relay.stop(),
    () => publisher.close(),
    () => broker.close(),
  );
});
const consuming: { stop(): Promise<void> }[] = [];
async function stopConsuming(): Promise<void> {
  for (const consumer of consuming.splice(0)) await consumer.stop();
}
afterEach(stopConsuming);
afterAll(async () => {
  for (const stop of stops) await stop();
  await http.close();
  await Promise.all([shop.end(), fulfilment.end()]);
  await Promise.all([schemas.drop(), vhost.drop()]);
});

async function consume(...given: Parameters<typeof defineConsumer>): Promise<void> {
  const inbox = createInbox(fulfilment, defineConsumer(...given));
  const consumer = startConsumer({ broker, inbox, logger: quiet, replayPollMs: 50 });
  consuming.push(consumer);
  await expect.poll(() => consumer.consuming, PATIENCE).toBe(true);
}

/** All that the spans say. */
const told = (): string =>
  JSON.stringify(spans().map(({ name, attributes, events, status }) => ({ name, attributes, events, status })));

const post = (body: object, headers: Record<string, string>) =>
  fetch(`http://127.0.0.1:${http.port}/customers`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  });

test('one trace runs from a request through each publish to each handler, and on through what a handler emits', async () => {
  await consume({
    name: 'greeter',
    handlers: [
      on(CustomerCreated, {
        handle: async (tx, message) =>
          outbox.add(tx, Greeted.message({ id: message.payload.customerId }, causedBy(message))),
      }),
    ],
  });
  await consume({ name: 'listener', batch: 1, handlers: [on(Greeted, { handle: async () => undefined })] });

  const ada = { email: 'canary@example.com', name: 'Canary' };
  const response = await post(ada, { traceparent: TRACEPARENT, 'x-correlation-id': 'c-1' });
  expect(response.status).toBe(201);
  await expect.poll(() => spans().map(({ name }) => name), PATIENCE).toHaveLength(5);

  const [server, created, greeter, greeted, listener] = [
    spanOf(SpanKind.SERVER, 'POST /customers'),
    spanOf(SpanKind.PRODUCER, 'publish oncebox.events:customer.created'),
    spanOf(SpanKind.CONSUMER, 'process oncebox.events:customer.created:greeter'),
    spanOf(SpanKind.PRODUCER, 'publish oncebox.events:greeting.greeted'),
    spanOf(SpanKind.CONSUMER, 'process oncebox.events:greeting.greeted:listener'),
  ];
  expect(new Set(spans().map((span) => span.spanContext().traceId))).toEqual(new Set([CALLER.trace]));
  expect([server, created, greeter, greeted, listener].map((span) => span.parentSpanContext?.spanId)).toEqual([
    CALLER.span,
    ...[server, created, greeter, greeted].map(idOf),
  ]);

  const id = response.headers.get('location')?.split('/').at(-1);
  const [[row]] = await shop.query<RowDataPacket[]>('SELECT id, headers FROM outbox WHERE aggregateid = ?', [id]);
  const messaging = {
    'messaging.system': 'rabbitmq',
    'messaging.message.id': row?.['id'],
    'messaging.message.conversation_id': 'c-1',
    'messaging.rabbitmq.destination.routing_key': 'customer.created',
    'oncebox.message.type': 'CustomerCreated',
  };
  expect(server.attributes).toEqual({
    'http.request.method': 'POST',
    'http.route': '/customers',
    'http.response.status_code': 201,
    'url.scheme': 'http',
  });
  expect(created.attributes).toEqual({
    ...messaging,
    'messaging.operation.name': 'publish',
    'messaging.operation.type': 'send',
    'messaging.destination.name': 'oncebox.events:customer.created',
    'oncebox.attempt': 1,
  });
  expect(greeter.attributes).toEqual({
    ...messaging,
    'messaging.operation.name': 'process',
    'messaging.operation.type': 'process',
    'messaging.destination.name': 'oncebox.events:customer.created:greeter',
    'messaging.consumer.group.name': 'greeter',
    'oncebox.attempt': 1,
    'oncebox.verdict': 'handled',
  });
  expect(told()).not.toMatch(/canary/i);
  // What is stored is the request's own span: the relay may come when it has long ended.
  expect(JSON.parse(row?.['headers'])).toEqual({
    correlationId: 'c-1',
    traceparent: `00-${CALLER.trace}-${idOf(server)}-01`,
  });
});

test.each([
  {
    way: 'on',
    handling: on(Greeted, {
      // Without a lineage: the span is found all the same.
      handle: (tx, { payload }) => outbox.add(tx, Noted.message(payload)),
    }),
  },
  {
    way: 'onBatch',
    handling: onBatch(Greeted, {
      async handle(tx, messages) {
        for (const message of messages) await outbox.add(tx, Noted.message(message.payload, causedBy(message)));
      },
    }),
  },
])(
  'with $way each message of a batch has its own span, and what is emitted for it belongs to that',
  async ({ way, handling }) => {
    const name = `batch-${way.toLowerCase()}`;
    // What has come while it was away is taken in batches.
    await consume({ name, handlers: [handling] });
    await stopConsuming();
    const ids = Array.from({ length: 20 }, (_, n) => `${way}-${n}`);
    await transaction(fulfilment, async (tx) => {
      for (const [n, id] of ids.entries()) {
        const traceparent = `00-${String(n + 1).padStart(32, '0')}-b7ad6b7169203331-01`;
        await outbox.add(tx, Greeted.message({ id }, { traceparent }));
      }
    });
    await expect.poll(() => vhost.depth(name), PATIENCE).toBe(20);
    await consume({ name, handlers: [handling] });
    const consumers = () => spans().filter(({ kind }) => kind === SpanKind.CONSUMER);
    const emitted = async () => {
      const [rows] = await fulfilment.query<RowDataPacket[]>(
        "SELECT aggregateid AS id, headers FROM outbox WHERE type = 'Noted' AND aggregateid IN (?)",
        [ids],
      );
      return new Map(rows.map((row) => [String(row['id']), JSON.parse(row['headers']).traceparent]));
    };
    await expect.poll(async () => [(await emitted()).size, consumers().length], PATIENCE).toEqual([20, 20]);
    const traceOf = new Map(consumers().map((span) => [span.spanContext().traceId, idOf(span)]));
    const expected = ids.map((id, n) => {
      const trace = String(n + 1).padStart(32, '0');
      return [id, `00-${trace}-${traceOf.get(trace)}-01`] as const;
    });
    expect(await emitted()).toEqual(new Map(expected));
  },
);

test.each([
  { kind: 'unordered', ordered: false },
  { kind: 'ordered', ordered: true },
])(
  'a retry and a replay of an $kind consumer have the parent of the first attempt; an error is its class',
  async ({ kind, ordered }) => {
    const attempts = () => spans().filter(({ kind }) => kind === SpanKind.CONSUMER);
    const handling = on(Greeted, {
      async handle() {
        if (attempts().length < 3) throw new RangeError('canary');
      },
    });
    await consume({ name: kind, ordered, retryDelaysMs: [50, 50], handlers: [handling] });
    await transaction(fulfilment, (tx) => outbox.add(tx, Greeted.message({ id: kind }, { traceparent: TRACEPARENT })));
    const replay = async () => {
      const [{ affectedRows }] = await fulfilment.query<ResultSetHeader>(
        "UPDATE dead_letters SET state = 'replay' WHERE consumer = ? AND state = 'dead'",
        [kind],
      );
      return affectedRows;
    };
    await expect.poll(replay, PATIENCE).toBe(1);
    await expect.poll(() => attempts().length, PATIENCE).toBe(4);
    const publish = spanOf(SpanKind.PRODUCER, 'greeting.greeted');
    expect(publish.parentSpanContext?.spanId).toBe(CALLER.span);
    expect(attempts().map((span) => span.parentSpanContext?.spanId)).toEqual(Array(4).fill(idOf(publish)));
    expect(attempts().map(({ attributes }) => [attributes['oncebox.attempt'], attributes['error.type']])).toEqual([
      [1, 'RangeError'],
      [2, 'RangeError'],
      [3, 'RangeError'],
      [1, undefined],
    ]);
    expect(told()).not.toMatch(/canary/i);
  },
);

test('each time that the broker refuses a message is a span of its own, below what wrote it', async () => {
  const Unheard = defineMessage({ ...Noted, payload: Greeted.schema, delivery: 'required', routingKey: 'unheard' });
  await transaction(shop, (tx) => outbox.add(tx, Unheard.message({ id: 'u' }, { traceparent: TRACEPARENT })));
  await expect.poll(() => spans().length, PATIENCE).toBeGreaterThan(1);
  const channel = await vhost.channel();
  const { queue } = await channel.assertQueue('', { exclusive: true });
  await channel.bindQueue(queue, Unheard.exchange, Unheard.routingKey);
  await expect.poll(() => vhost.depth(queue), PATIENCE).toBe(1);
  await expect.poll(() => spans().at(-1)?.attributes, PATIENCE).not.toHaveProperty('error.type');
  const sent = spans().map(({ parentSpanContext, attributes }) => ({
    parent: parentSpanContext?.spanId,
    attempt: attributes['oncebox.attempt'],
    error: attributes['error.type'],
  }));
  const refused = Array.from({ length: sent.length - 1 }, (_, n) => ({ attempt: n + 1, error: 'returned' }));
  const expected = [...refused, { attempt: sent.length, error: undefined }];
  expect(sent).toEqual(expected.map((attempt) => ({ parent: CALLER.span, ...attempt })));
});

test('a question is answered in a span of whoever asks, which knows its failure by the class alone', async () => {
  const contract = defineRequest({ type: 'Ask', owner: 'oracle', question: z.object({}), answer: z.object({}) });
  const answer = async () => {
    throw new RangeError('canary');
  };
  const responder = startResponder({ broker, contract, answer, logger: quiet });
  consuming.push(responder);
  await expect.poll(() => responder.consuming, PATIENCE).toBe(true);
  const requester = createRequester({ urls: [vhost.amqpUrl], name: 'asking', logger: quiet });
  stops.push(() => requester.close());
  const ask = () =>
    trace.getTracer('test').startActiveSpan('asks', async (span) => {
      const asked = requester.request(contract, {}, { timeoutMs: 5_000, lineage: { correlationId: 'c-2' } });
      const code = await asked.catch((error: unknown) => error instanceof Error && Reflect.get(error, 'code'));
      span.end();
      return code === 'ONCEBOX_REQUEST_FAILED' ? span.spanContext().spanId : undefined;
    });
  // It is refused until the requester is connected.
  let asker: string | undefined;
  await expect
    .poll(async () => {
      asker = await ask();
      return asker;
    }, PATIENCE)
    .toBeDefined();
  const answered = () => spans().filter(({ kind }) => kind === SpanKind.CONSUMER);
  await expect.poll(() => answered().map((span) => span.parentSpanContext?.spanId), PATIENCE).toEqual([asker]);
  expect(answered()[0]?.attributes).toMatchObject({
    'messaging.destination.name': 'oracle.Ask',
    'messaging.message.conversation_id': 'c-2',
    'error.type': 'RangeError',
  });
});
