import { defineMessage } from '@oncebox/message';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { CustomerCreatedV1 } from '../customer.ts';
import { breaks } from './breaking.ts';
import { breakage } from './committed.ts';
import { contractsIn, schemaOf } from './schema.ts';

const seat = { flight: z.string().max(6), row: z.int(), class: z.enum(['first', 'second']).optional() };
const definition = {
  type: 'SeatBooked',
  version: 1,
  aggregateType: 'flight',
  aggregateId: () => 'OB1',
  routingKey: 'seat.booked',
};
const schema = (
  payload: z.ZodType,
  change: {
    readonly routingKey?: string;
    readonly delivery?: 'optional';
    readonly overLimit?: 'claim-check';
  } = {},
) => schemaOf(defineMessage({ ...definition, payload, ...change }));
const committed = schema(z.strictObject(seat));

describe('what breaks readers', () => {
  it.each([
    ['a field that is removed', z.strictObject(seat).omit({ row: true }), ['row: is removed']],
    ['a field of another type', z.strictObject({ ...seat, row: z.string() }), ['row: was integer and is string']],
    [
      'a field that may be null',
      z.strictObject({ ...seat, row: z.int().nullable() }),
      ['row: was integer and is one of several types'],
    ],
    ['a new required field', z.strictObject({ ...seat, name: z.string() }), ['name: is new and required']],
    [
      'a new optional field, where fields that are not known are refused',
      z.strictObject({ ...seat, name: z.string().optional() }),
      ['name: is new, and refused by readers that are running'],
    ],
    [
      'an optional field that is required now',
      z.strictObject({ ...seat, class: seat.class.unwrap() }),
      ['class: was optional and is required'],
    ],
    [
      'a required field that is optional now',
      z.strictObject({ ...seat, row: seat.row.optional() }),
      ['row: was required and is optional'],
    ],
    [
      'an enum that is another one',
      z.strictObject({ ...seat, class: z.enum(['second', 'third']).optional() }),
      ['class: "first" is removed', 'class: "third" is new, and refused by readers that are running'],
    ],
    [
      'a limit that moves',
      z.strictObject({ ...seat, flight: z.string().max(7) }),
      ['flight: maxLength was 6 and is 7'],
    ],
    ['no object any more', z.string(), ['the payload: was object and is string']],
    [
      'fields that are not known taken',
      z.object(seat),
      ['the payload: additionalProperties was false and is not there'],
    ],
  ])('%s', (_, payload, lines) => expect(breaks(committed, schema(payload))).toEqual(lines));

  it('a change within objects and arrays, named by its path', () => {
    const within = (price: z.ZodType) =>
      schema(z.strictObject({ order: z.strictObject({ items: z.array(z.strictObject({ price })) }) }));
    expect(breaks(within(z.int()), within(z.string()))).toEqual(['order.items[].price: was integer and is string']);
  });

  it('another key, which the queues are not bound for, a message that no longer waits for its queue, and a payload that is suddenly to be fetched', () => {
    const moved = schema(z.strictObject(seat), {
      routingKey: 'seats.booked',
      delivery: 'optional',
      overLimit: 'claim-check',
    });
    expect(breaks(committed, moved)).toEqual([
      'the payload: x-routing-key was "seat.booked" and is "seats.booked"',
      'the payload: x-delivery was not there and is "optional"',
      'the payload: x-over-limit was not there and is "claim-check"',
    ]);
  });
});

it('a value of another type, which looks the same', () => {
  const aisle = (...values: [string | number, ...(string | number)[]]) =>
    schema(z.strictObject({ aisle: z.literal(values) }));
  expect(breaks(aisle(1, '2'), aisle('1', 2))).toHaveLength(4);
  expect(breaks(aisle(1, '2'), aisle(1, '2'))).toEqual([]);
});

it('a description breaks nobody, nor a new optional field where any field is taken', () => {
  expect(breaks(committed, schema(z.strictObject({ ...seat, row: z.int().describe('From the front.') })))).toEqual([]);
  expect(breaks(schema(z.object(seat)), schema(z.object({ ...seat, name: z.string().optional() })))).toEqual([]);
});

describe('a contract that was edited carelessly', () => {
  const { type, routingKey, aggregateType } = CustomerCreatedV1;
  const payload = z.strictObject({ customerId: z.uuid() });
  const edited = defineMessage({ type, version: 1, routingKey, aggregateType, aggregateId: () => 'c', payload });

  it('is refused with what breaks and what to do', () => {
    const [problem = ''] = breakage([edited]);
    expect(problem).toMatch(/^CustomerCreated v1 has changed so that readers break:/);
    expect(problem).toContain('    email: is removed');
    expect(problem).toContain('make v2: nextVersion(');
  });

  it('is refused when it is gone, as its messages may not be', () => {
    expect(breakage([], new Map([['SeatBooked.v1', committed]]))).toEqual([
      expect.stringMatching(/^SeatBooked\.v1 has a committed schema and no contract.* delete packages/),
    ]);
  });
});

it('every version of a contract is found by its newest', () => {
  const v1 = defineMessage({ ...definition, payload: z.strictObject(seat) });
  expect(contractsIn({ v1, other: 1, schema: z.string() })).toEqual([v1]);
});

it('two contracts of one type and version are refused, as the checks would see only one of them', () => {
  const [one, other] = [z.string(), z.int()].map((payload) =>
    defineMessage<string, unknown>({ ...definition, payload }),
  );
  expect(() => contractsIn({ one, other })).toThrow('two contracts SeatBooked.v1');
  expect(contractsIn({ one, again: one })).toHaveLength(1);
});
