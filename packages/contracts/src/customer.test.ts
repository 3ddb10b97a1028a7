import { expect, it } from 'vitest';
import { CustomerCreatedV1 } from './customer.ts';

const named = (name: string) =>
  CustomerCreatedV1.schema.safeParse({
    customerId: '01980a5e-5c00-7000-8000-000000000001',
    email: 'ada@example.com',
    name,
    version: 1,
  }).success;

it.each(['x', 'é', '👩', '𝒳'])('a name has at most 200 characters %s', (character) => {
  expect(named(character)).toBe(true);
  expect(named(character.repeat(200))).toBe(true);
  expect(named(character.repeat(201))).toBe(false);
});

it('a name has at least one', () => {
  expect(named('')).toBe(false);
});
