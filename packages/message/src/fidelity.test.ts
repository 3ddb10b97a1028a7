import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { type Contract, causedBy, defineMessage, type Lineage } from './contract.ts';
import { MessageError } from './errors.ts';
import { decodeLineage, toOutboxRow } from './row.ts';
import { fromWire, toWire } from './wire.ts';

/**
 * What the writer accepts, every reader gets: the same payload, key, id and lineage. What it does
 * not accept is refused in our words.
 */

const contractOf = (payload: z.ZodType, aggregateId: () => string = () => 'a'): Contract =>
  defineMessage({ type: 'Sent', version: 1, aggregateType: 'thing', routingKey: 'thing.sent', aggregateId, payload });

/** As the outbox gives a row to the relay, the relay to the wire, and the wire to a handler. */
function arrival(contract: Contract, row: ReturnType<typeof toOutboxRow>) {
  const { body, properties } = toWire({
    id: row.id,
    type: row.type,
    version: row.version,
    aggregateId: row.aggregateid,
    partition: 3,
    payload: row.payload,
    lineage: decodeLineage(row.headers),
    exchange: row.exchange,
    routingKey: row.routing_key,
    mandatory: true,
    source: 'shop',
    occurredAt: new Date(),
  });
  const received = fromWire({ content: body, properties, routingKey: row.routing_key });
  return { ...received, payload: contract.read(received.version, JSON.parse(received.payload)) };
}

/** @returns undefined for what the writer refuses. */
function sent(contract: Contract, message: ReturnType<Contract['message']>) {
  let row: ReturnType<typeof toOutboxRow>;
  try {
    row = toOutboxRow(message);
  } catch (error) {
    expect(error).toBeInstanceOf(MessageError);
    return undefined;
  }
  return arrival(contract, row);
}

/** Without what the rule leaves open: undefined is absent, and -0 is 0. */
function normal(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(normal);
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype)
    return value === 0 ? 0 : value;
  const entries = Object.entries(value).filter(([, field]) => field !== undefined);
  return Object.fromEntries(entries.map(([key, field]) => [key, normal(field)]));
}

const schemas: Record<string, z.ZodType> = {
  'z.any': z.any(),
  'z.json': z.json(),
  'z.object': z.object({ a: z.any(), b: z.string().optional() }),
  'z.strictObject': z.strictObject({ a: z.any().optional(), b: z.string().optional() }),
  'z.looseObject': z.looseObject({ a: z.any() }),
  'z.record': z.record(z.string(), z.any()),
  'z.date': z.union([z.date(), z.object({ at: z.date() })]),
  'z.coerce': z.object({ a: z.coerce.string(), n: z.coerce.number(), at: z.coerce.date().optional() }),
  'z.default': z.object({ a: z.string().default('x'), c: z.number().catch(1) }),
  transform: z.union([z.string().trim().toLowerCase(), z.array(z.any()).transform((list) => list.slice(0, 2))]),
  codec: z.codec(z.iso.datetime(), z.date(), { decode: (text) => new Date(text), encode: (at) => at.toISOString() }),
};

const anything = fc.anything({
  withBigInt: true,
  withBoxedValues: true,
  withDate: true,
  withMap: true,
  withNullPrototype: true,
  withObjectString: true,
  withSet: true,
  withSparseArray: true,
  withTypedArray: true,
  withUnicodeString: true,
});
const shaped = fc.record(
  { a: anything, b: fc.string(), c: fc.double(), n: fc.float(), at: fc.date() },
  { requiredKeys: [] },
);
const payloads = fc.oneof(
  fc.jsonValue({ stringUnit: 'binary' }),
  anything,
  shaped,
  fc.string({ unit: 'binary' }),
  fc.date(),
);

const long = (unit: 'binary' | 'grapheme') => fc.string({ unit, size: 'max', maxLength: 300 });
const texts = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 20 }),
  long('binary'),
  long('grapheme'),
  fc.tuple(fc.constantFrom('🚚', 'é', 'a', '\0', '\ud800', '\ufffd'), fc.nat(300)).map(([one, n]) => one.repeat(n)),
);
const lineages: fc.Arbitrary<Lineage> = fc.record(
  { correlationId: texts, causationId: texts, traceparent: texts },
  { requiredKeys: [] },
);

describe('what the writer accepts arrives as it was given', () => {
  test.each(Object.entries(schemas))('any payload, by %s', (_, schema) => {
    const contract = contractOf(schema);
    fc.assert(
      fc.property(payloads, (payload) => {
        const arrived = sent(contract, contract.message(payload));
        if (arrived !== undefined) expect(isDeepStrictEqual(normal(arrived.payload), normal(payload))).toBe(true);
      }),
      { numRuns: 1_000 },
    );
  });

  test('and all that is JSON is accepted', () => {
    const contract = contractOf(z.any());
    const json = fc
      .jsonValue({ stringUnit: 'binary' })
      .filter((value) => !JSON.stringify(value).includes('"__proto__"'));
    fc.assert(
      fc.property(json, (payload) => {
        expect(sent(contract, contract.message(payload))?.payload).toEqual(normal(payload));
      }),
    );
  });

  test('any key and lineage, which what it causes can carry on', () => {
    fc.assert(
      fc.property(texts, lineages, (key, lineage) => {
        const contract = contractOf(z.any(), () => key);
        const message = contract.message({}, lineage);
        const arrived = sent(contract, message);
        if (arrived === undefined) return;
        const { traceparent, ...ids } = lineage;
        expect(arrived).toMatchObject({ id: message.id, aggregateId: key });
        expect([ids, { ...ids, traceparent }]).toContainEqual(arrived.lineage);
        expect(sent(contract, contract.message({}, causedBy(arrived)))?.lineage.causationId).toBe(message.id);
      }),
      { numRuns: 1_000 },
    );
  });

  test('any id that replaces its own', () => {
    const contract = contractOf(z.any());
    fc.assert(
      fc.property(fc.oneof(texts, fc.string({ maxLength: 40 })), (id) => {
        const arrived = sent(contract, { ...contract.message({}), id });
        if (arrived !== undefined) expect(arrived.id).toBe(id);
      }),
    );
  });

  test('whatever comes, what it causes can be written', () => {
    const contract = contractOf(z.any());
    fc.assert(
      fc.property(texts, texts, texts, texts, (messageId, correlationId, causationid, traceparent) => {
        const headers = { schemaversion: 1, causationid, traceparent };
        const properties = { messageId, type: 'Sent', correlationId, headers };
        let received: ReturnType<typeof fromWire>;
        try {
          received = fromWire({ content: Buffer.from('{}'), routingKey: 'x', properties });
        } catch (error) {
          expect(error).toMatchObject({ code: 'ONCEBOX_MALFORMED_MESSAGE' });
          return;
        }
        const row = toOutboxRow(contract.message({}, causedBy(received)));
        expect(decodeLineage(row.headers)).toEqual(causedBy(received));
      }),
    );
  });
});
