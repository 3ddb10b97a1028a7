import { createInbox, defineConsumer, on } from '@oncebox/inbox';
import { type Contract, defineMessage, type Lineage, MessageError } from '@oncebox/message';
import { createPool, type Pool, transaction } from '@oncebox/mysql';
import { createRelay, outbox } from '@oncebox/outbox';
import { connectBroker, createPublisher, startConsumer } from '@oncebox/rabbitmq';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, inject, test, vi } from 'vitest';
import { z } from 'zod';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';
import { createVhost, type Vhost } from '../support/vhost.ts';

/**
 * What `outbox.add` takes, whatever it is, an unordered and an ordered consumer handle: each field
 * of it as it was given.
 */

const PATIENCE = { timeout: 30_000, interval: 50 };
const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined };
const RUNS = 150;
/** The same again for the same; a failure shows it. */
const seed = Number(process.env['ONCEBOX_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

/**
 * The key is beside the payload, which has no form of its own: the writer sets it before each
 * message.
 */
let key = '';
const Anything = defineMessage({
  type: 'Anything',
  version: 1,
  aggregateType: 'thing',
  aggregateId: () => key,
  routingKey: 'any.thing',
  payload: z.any(),
});

/** Byte for byte: as the handler's text, and not by any equality. */
interface Arrived {
  readonly id: string;
  readonly key: string | undefined;
  readonly lineage: Lineage;
  readonly payload: string;
}
const textOf = ({ id, key, lineage, payload }: Arrived): string => {
  const { correlationId, causationId, traceparent } = lineage;
  return JSON.stringify([id, key, correlationId, causationId, traceparent, payload]);
};

let schemas: TestSchemas;
let vhost: Vhost;
let pool: Pool;
let consuming: Pool;
const stops: (() => Promise<unknown>)[] = [];
const arrived = { unordered: [] as string[], ordered: [] as string[] }; // as string[]: an empty array has no element type
beforeAll(async () => {
  [schemas, vhost] = await Promise.all([createSchemas(inject('servers')), createVhost(inject('servers'))]);
  pool = createPool(schemas.shop.url, { connections: 4 });
  consuming = createPool(schemas.fulfilment.url, { connections: 10 });
  const broker = connectBroker({ urls: [vhost.amqpUrl], name: 'handles anything', logger: quiet });
  stops.unshift(() => broker.close());
  for (const [name, list] of Object.entries(arrived)) {
    const handlers = [
      on(Anything, {
        async handle(_tx, { id, aggregateId, lineage, payload }) {
          list.push(textOf({ id, key: aggregateId, lineage, payload: JSON.stringify(payload) }));
        },
      }),
    ];
    const definition = defineConsumer({ name, handlers, ...(name === 'ordered' ? { ordered: true } : {}) });
    const consumer = startConsumer({ broker, inbox: createInbox(consuming, definition), logger: quiet });
    stops.unshift(() => consumer.stop());
    await vi.waitFor(() => expect(consumer.consuming).toBe(true), PATIENCE);
  }
});
afterAll(async () => {
  for (const stop of stops) await stop();
  await Promise.all([pool.end(), consuming.end()]);
  await Promise.all([schemas.drop(), vhost.drop()]);
});

const text = (maxLength: number) =>
  fc.oneof(
    fc.string({ unit: 'binary', maxLength, size: 'max' }),
    fc.string({ unit: 'grapheme', maxLength, size: 'max' }),
    fc
      .tuple(fc.constantFrom('🚚', 'é', 'a', '\0', ' '), fc.integer({ min: 1, max: maxLength }))
      .map(([c, n]) => c.repeat(n)),
  );
const messages = fc.record({
  key: text(260),
  lineage: fc.record(
    { correlationId: text(260), causationId: text(130), traceparent: text(300) },
    { requiredKeys: [] },
  ),
  payload: fc.oneof({ weight: 3, arbitrary: fc.jsonValue({ stringUnit: 'binary', maxDepth: 6 }) }, fc.anything()),
  id: fc.option(fc.string({ minLength: 1, maxLength: 40 }), { nil: undefined, freq: 5 }),
});

/** Texts at the limits, which chance seldom finds. */
const limits = [
  { key: '🚚'.repeat(255), lineage: { correlationId: 'é'.repeat(127), causationId: 'a'.repeat(255) }, payload: 0 },
  { key: 'k', lineage: { correlationId: '\0'.repeat(255) }, payload: { text: `\0 \ud800 ${'🚚'.repeat(1_000)}` } },
  { key: ' k ', lineage: { traceparent: 'x'.repeat(256) }, payload: { 'a\u2028b': [-0, 1e-300, 2 ** 53] } },
];

/** @returns undefined for what is refused. */
async function write(given: { key: string; lineage: Lineage; payload: unknown; id?: string | undefined }) {
  const contract: Contract = Anything;
  const made = contract.message(given.payload, given.lineage);
  const message = given.id === undefined ? made : { ...made, id: given.id };
  try {
    await transaction(pool, (tx) => {
      key = given.key;
      return outbox.add(tx, message);
    });
  } catch (error) {
    // An id that chance gives twice is the database's to refuse.
    if (!(error instanceof MessageError)) expect(error).toMatchObject({ errno: 1062 });
    return undefined;
  }
  const { traceparent, ...ids } = given.lineage;
  const isCarried = traceparent !== undefined && traceparent !== '' && Buffer.byteLength(traceparent) <= 255;
  const isWhole = isCarried && traceparent.isWellFormed() && !traceparent.includes('\ufffd');
  const lineage = isWhole ? { ...ids, traceparent } : ids;
  return textOf({ id: message.id, key: given.key, lineage, payload: JSON.stringify(given.payload) });
}

test('D3: what is added arrives, to the byte', async () => {
  const sent: string[] = [];
  const message = `ONCEBOX_SEED=${seed}`;
  for (const given of [...limits, ...fc.sample(messages, { seed, numRuns: RUNS })]) {
    const written = await write(given);
    if (written !== undefined) sent.push(written);
  }
  expect(sent.length, message).toBeGreaterThan(limits.length + RUNS / 10);
  const publisher = createPublisher({ urls: [vhost.amqpUrl], name: 'relay of anything', logger: quiet });
  stops.push(() => publisher.close());
  await expect.poll(() => publisher.ready, PATIENCE).toBe(true);
  const relay = createRelay({ databaseUrls: schemas.relayUrls.split(',').slice(0, 1), publisher, logger: quiet });
  stops.unshift(() => relay.stop());
  while ((await relay.runOnce()).length > 0);
  await expect.poll(() => arrived.unordered.toSorted(), { ...PATIENCE, message }).toEqual(sent.toSorted());
  await expect.poll(() => arrived.ordered.toSorted(), { ...PATIENCE, message }).toEqual(sent.toSorted());
});
