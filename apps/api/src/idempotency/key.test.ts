import { expect, it } from 'vitest';
import { idempotencyKeyOf } from './key.ts';

const keyOf = (header: string) => idempotencyKeyOf(header)?.toString('latin1');

it.each([
  ['"8e03978e-40d5-43dd-bc93-6894a57f9324"', '8e03978e-40d5-43dd-bc93-6894a57f9324'],
  ['8e03978e-40d5-43dd-bc93-6894a57f9324', '8e03978e-40d5-43dd-bc93-6894a57f9324'],
  ['order:4711/a+b=', 'order:4711/a+b='],
  ['"with space "', 'with space '],
  ['"a, b; c"', 'a, b; c'],
  [String.raw`"quote \" and \\"`, String.raw`quote " and \ `.trimEnd()],
  ['"caf\u00e9"', 'caf\u00e9'],
  [`"${'x'.repeat(255)}"`, 'x'.repeat(255)],
  ['x'.repeat(255), 'x'.repeat(255)],
])('%s', (header, key) => {
  expect(keyOf(header)).toBe(key);
});

it.each([
  '',
  '""',
  '"open',
  'open"',
  '"a" "b"',
  '"a", "b"',
  'a, b',
  'a b',
  '"a";v=1',
  'a;v=1',
  String.raw`"\a"`,
  String.raw`a\b`,
  '"a"b"',
  '"tab\t"',
  'caf\u00e9',
  `"${'x'.repeat(256)}"`,
  'x'.repeat(256),
])('refuses %j', (header) => {
  expect(() => idempotencyKeyOf(header)).toThrow(expect.objectContaining({ status: 400 }));
});

it('is not needed', () => {
  expect(idempotencyKeyOf(undefined)).toBeUndefined();
});
