import { describe, expect, it, test } from 'vitest';
import { z } from 'zod';
import { type Contract, defineMessage } from './contract.ts';
import { encodePayload } from './encode.ts';
import { MessageError } from './errors.ts';

/** Payloads that JSON or a schema would change, one by one; fidelity.test.ts has any payload. */

const contractOf = (payload: z.ZodType): Contract =>
  defineMessage({
    type: 'Sent',
    version: 1,
    aggregateType: 'thing',
    routingKey: 'thing.sent',
    aggregateId: () => 'a',
    payload,
  });

const circular: Record<string, unknown> = {};
circular['self'] = circular;
const deep = (levels: number): unknown => (levels === 0 ? 1 : { a: deep(levels - 1) });
const refused: [string, unknown, z.ZodType, string][] = [
  ['a Date that any() lets pass', { at: new Date(0) }, z.any(), 'at'],
  ['a Date that date() asks for', { at: new Date(0) }, z.strictObject({ at: z.date() }), 'at'],
  ['NaN', { a: [1, Number.NaN] }, z.any(), 'a.1'],
  ['Infinity', Number.POSITIVE_INFINITY, z.any(), ''],
  ['a Map', { m: new Map([[1, 2]]) }, z.any(), 'm'],
  ['a Set', { s: new Set([1]) }, z.any(), 's'],
  ['a BigInt', { b: 1n }, z.any(), ''],
  ['a function', { f: () => 1 }, z.any(), 'f'],
  ['a symbol', { s: Symbol('x') }, z.any(), 's'],
  ['a symbol as a key', { [Symbol('x')]: 1 }, z.any(), '*'],
  ['undefined alone', undefined, z.any(), ''],
  ['an instance with toJSON', { u: new URL('http://a/') }, z.any(), 'u'],
  [
    'an instance of a class',
    {
      c: new (class Money {
        cents = 1;
      })(),
    },
    z.any(),
    'c',
  ],
  // biome-ignore lint/suspicious/noSparseArray: the hole is what is tested.
  ['a hole', { l: [1, , 3] }, z.any(), 'l'],
  ['undefined in an array', { l: [undefined] }, z.any(), 'l.0'],
  ['a text that its schema trims', { t: ' a' }, z.strictObject({ t: z.string().trim() }), 't'],
  ['a key that its schema strips', { a: 1, b: 2 }, z.object({ a: z.int() }), 'b'],
  ['a field that its schema fills in', {}, z.object({ a: z.int().default(1) }), 'a'],
  [
    'a getter',
    {
      get a() {
        return 1;
      },
    },
    z.any(),
    'a',
  ],
  ['a key __proto__', JSON.parse('{"__proto__":1}'), z.any(), '__proto__'],
  ['a circle', circular, z.any(), ''],
  ['a circle that its schema follows', circular, z.json(), ''],
  ['more levels than a reader may follow', deep(257), z.any(), ''],
  ['more levels than JSON follows', deep(5_000), z.any(), ''],
];

describe('the writer refuses', () => {
  it.each(refused)('%s, and names its place', (_, payload, schema, path) => {
    const contract = contractOf(schema);
    let error: unknown;
    try {
      encodePayload(contract, payload);
    } catch (thrown) {
      error = thrown;
    }
    if (!(error instanceof MessageError)) return expect.fail('it was taken, or refused in words that are not ours');
    expect(error.code).toBe('ONCEBOX_INVALID_PAYLOAD');
    expect(error.issues[0]?.path ?? '').toBe(path);
  });

  it('a schema that is asynchronous, as one', () => {
    const contract = contractOf(z.string().refine(async () => true));
    expect(() => encodePayload(contract, 'a')).toThrow(
      expect.objectContaining({ code: 'ONCEBOX_INVALID_CONTRACT', message: expect.stringContaining('asynchronous') }),
    );
  });

  it('quotes no value and no key that may be data', () => {
    const contract = contractOf(z.any());
    expect(() => encodePayload(contract, { 'canary@example.org': new Date() })).toThrow(/: \*: its readers/);
  });
});

test.each([
  ['a trimmed text', { t: 'a' }, z.strictObject({ t: z.string().trim() })],
  [
    'an absent field and one that is undefined',
    { a: undefined },
    z.strictObject({ a: z.int().optional(), b: z.int().optional() }),
  ],
  ['-0, which is 0', { n: -0 }, z.any()],
  ['a Date that its reader makes again', { at: new Date(5) }, z.strictObject({ at: z.coerce.date() })],
  ['an unpaired surrogate and NUL in a text', { t: '\ud800 \0' }, z.any()],
  ['256 levels', deep(256), z.any()],
])('%s is accepted', (_, payload, schema) => {
  const contract = contractOf(schema);
  const { text } = encodePayload(contract, payload);
  expect(JSON.stringify(contract.read(1, JSON.parse(text)))).toBe(JSON.stringify(payload));
});
