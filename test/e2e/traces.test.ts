import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { type Collector, type Exported, startCollector } from '../support/collector.ts';
import { placeOrder } from '../support/shopping.ts';
import { createSystem, postCustomer, type System } from '../support/system.ts';

/** The traces of the real processes, as a collector gets them. */

const PATIENCE = { timeout: 40_000, interval: 50 };
const CALLER = 'b7ad6b7169203331';
const TRACE = '0af7651916cd43dd8448eb211c80319c';

let system: System;
let collector: Collector;
beforeAll(async () => {
  [system, collector] = await Promise.all([createSystem(inject('servers')), startCollector()]);
});
afterAll(async () => {
  await system?.drop();
  await collector?.close();
});

test('one trace and one correlation id run from the order that is placed to the e-mail that confirms it', async () => {
  const tracing = { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url };
  const [api, worker] = [await system.api(tracing), system.worker(tracing)];
  await worker.ready();
  const relay = system.relay(tracing);
  const customerId = await postCustomer(api, 'ada');
  const headers = { traceparent: `00-${TRACE}-${CALLER}-01`, 'x-correlation-id': 'order-4711' };
  await placeOrder(api, { customerId }, headers);

  const spans = () => collector.spans.filter(({ traceId }) => traceId === TRACE);
  const named = (name: string) => spans().filter((span) => span.name === name);
  const email = 'process oncebox.events:order.confirmed:order-emails';
  await expect.poll(() => named(email), PATIENCE).toHaveLength(1);
  // What has ended by then is sent before the processes end.
  const programs = [api, relay, worker];
  for (const program of programs) program.kill('SIGTERM');
  expect(await Promise.all(programs.map(({ exited }) => exited))).toEqual([0, 0, 0]);

  const wayTo = (span: Exported | undefined): string[] => {
    const before = spans().find(({ spanId }) => spanId === span?.parentSpanId);
    return span === undefined ? [] : [...wayTo(before), `${span.service}: ${span.name}`];
  };
  const events = (key: string) => `oncebox.events:${key}`;
  expect(wayTo(named(email)[0])).toEqual([
    'api: POST /orders',
    `relay: publish ${events('order.placed')}`,
    `worker: process ${events('order.placed')}:inventory`,
    `relay: publish ${events('stock.reserved')}`,
    `worker: process ${events('stock.reserved')}:payments`,
    `relay: publish ${events('payment.processed')}`,
    `api: process ${events('payment.processed')}:orders`,
    `relay: publish ${events('order.confirmed')}`,
    `worker: ${email}`,
  ]);
  // The e-mail is about the order as it is then, which the worker asks the api for.
  expect(wayTo(named('GET /orders/:id')[0]).slice(-2)).toEqual([`worker: ${email}`, 'api: GET /orders/:id']);
  const known = new Set([CALLER, ...spans().map(({ spanId }) => spanId)]);
  expect(spans().filter(({ parentSpanId = '' }) => !known.has(parentSpanId))).toEqual([]);

  // As docs/operations.md has it.
  const emitted = `SELECT id, type, JSON_VALUE(headers, '$.causationId') AS caused_by FROM outbox
    WHERE JSON_VALUE(headers, '$.correlationId') = 'order-4711'`;
  const rows = [...(await system.shop(emitted)), ...(await system.fulfilment(emitted))];
  const typeOf = new Map(rows.map(({ id, type }) => [id, type]));
  expect(new Map(rows.map(({ type, caused_by }) => [type, typeOf.get(caused_by)]))).toEqual(
    new Map([
      ['OrderPlaced', undefined],
      ['StockReserved', 'OrderPlaced'],
      ['PaymentProcessed', 'StockReserved'],
      ['OrderConfirmed', 'PaymentProcessed'],
    ]),
  );
  const ids = new Set(rows.map(({ id }) => id));
  const lines = programs.flatMap((program) => program.lines);
  const about = lines.filter(({ messageId, msg }) => ids.has(messageId) || [...ids].some((id) => msg.includes(id)));
  const others = about.filter(
    ({ correlationId, correlationIds }) => !`${correlationId ?? correlationIds}`.includes('order-4711'),
  );
  expect(others).toEqual([]);
  const handling = about.filter(({ msg }) => msg.startsWith('Handling ['));
  expect(handling.length).toBeGreaterThan(4);
  const processed = new Set(
    spans()
      .filter(({ service }) => service === 'worker')
      .map(({ spanId }) => spanId),
  );
  expect(handling.filter(({ trace_id, span_id }) => trace_id !== TRACE || !processed.has(String(span_id)))).toEqual([]);
  const requests = lines.filter(({ msg }) => /^(POST|GET) \/orders/.test(msg));
  expect(requests.map(({ correlationId, trace_id }) => [correlationId, trace_id])).toEqual([
    ['order-4711', TRACE],
    ['order-4711', TRACE],
  ]);
});

test('a collector that is away loses spans and nothing else', async () => {
  const away = await startCollector();
  await away.close();
  const api = await system.api({ OTEL_EXPORTER_OTLP_ENDPOINT: away.url });
  await postCustomer(api, 'bea');
  api.kill('SIGTERM');
  expect(await api.exited).toBe(0);
  expect(api.lines.filter(({ level }) => level === 'warn').map(({ msg }) => msg)).toContainEqual(
    expect.stringMatching(/^Tracing: /),
  );
});
