import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { type Contract, defineMessage, nextVersion, versionsOf } from './contract.ts';
import { MessageError } from './errors.ts';

const definition = {
  type: 'SeatBooked',
  version: 1,
  aggregateType: 'flight',
  aggregateId: (seat: { flight: string }) => seat.flight,
  routingKey: 'seat.booked',
  payload: z.strictObject({ flight: z.string(), row: z.int() }),
} as const;

describe('defineMessage', () => {
  it('gives every message an id of its own, in the order of time', () => {
    const SeatBooked = defineMessage(definition);
    const ids = Array.from({ length: 100 }, () => SeatBooked.message({ flight: 'OB1', row: 1 }).id);
    expect(new Set(ids).size).toBe(100);
    expect([...ids].sort()).toEqual(ids);
    expect(ids[0]).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7/);
  });

  it('is required, holds its key when parked, and goes to the exchange of events unless it says otherwise', () => {
    expect(defineMessage(definition)).toMatchObject({
      delivery: 'required',
      whenParked: 'hold',
      exchange: 'oncebox.events',
    });
    expect(defineMessage({ ...definition, delivery: 'optional', whenParked: 'continue', exchange: 'x' })).toMatchObject(
      {
        delivery: 'optional',
        whenParked: 'continue',
        exchange: 'x',
      },
    );
  });

  it.each([
    ['a type that is no name', { type: 'Seat Booked' }],
    ['a type that its column cannot hold', { type: 'S'.repeat(129) }],
    ['version 0', { version: 0 }],
    ['a version that is no integer', { version: 1.5 }],
    ['an empty routing key', { routingKey: '' }],
    ['a routing key of more than 255 bytes', { routingKey: 'é'.repeat(128) }],
    ['an aggregate type that is no name', { aggregateType: '' }],
    ['a limit of no bytes', { maxBytes: 0 }],
    ['a routing key that is not well-formed', { routingKey: 'a\ud800' }],
    ['a routing key with U+FFFD', { routingKey: 'a\ufffd' }],
    ['no exchange', { exchange: '' }],
    ['an exchange that its column cannot hold', { exchange: 'x'.repeat(128) }],
    ['an exchange of more than 255 bytes', { exchange: '🚚'.repeat(64) }],
    ['an exchange that is not well-formed', { exchange: '\udc00' }],
    // What a caller without types could pass.
    ['a type that is no text', { type: JSON.parse('null') }],
    ['a delivery that its column does not know', { delivery: JSON.parse('"maybe"') }],
    ['a way of parking that its column does not know', { whenParked: JSON.parse('"stop"') }],
    ['a way over the limit that nobody knows', { overLimit: JSON.parse('"cut"') }],
    ['a key that is no function', { aggregateId: JSON.parse('"flight"') }],
    ['a payload that is no schema', { payload: JSON.parse('{}') }],
  ])('refuses %s', (_, change) => {
    expect(() => defineMessage({ ...definition, ...change })).toThrow(
      expect.objectContaining({ code: 'ONCEBOX_INVALID_CONTRACT' }),
    );
    expect(() => defineMessage({ ...definition, ...change })).toThrow(MessageError);
  });

  it('takes names at their limits', () => {
    const names = { type: `T${'x'.repeat(127)}`, routingKey: 'é'.repeat(127), exchange: 'é'.repeat(127) };
    expect(defineMessage({ ...definition, ...names })).toMatchObject(names);
  });

  it('keeps the messages of two contracts apart in the types', () => {
    const SeatBooked = defineMessage(definition);
    const SeatFreed = defineMessage({
      ...definition,
      type: 'SeatFreed',
      payload: z.strictObject({ flight: z.string() }),
    });
    const onlyBooked = (contract: Contract<'SeatBooked', { flight: string; row: number }>): string => contract.type;
    // @ts-expect-error a message of one contract is not another's
    expect(onlyBooked(SeatFreed)).toBe('SeatFreed');
    // @ts-expect-error the payload is the contract's
    SeatBooked.message({ flight: 'OB1' });
  });
});

describe('nextVersion', () => {
  const v1 = defineMessage(definition);
  const v2 = nextVersion(v1, {
    aggregateId: ({ flight }) => flight,
    payload: z.strictObject({ flight: z.string(), seat: z.string() }),
    upcast: ({ flight, row }) => ({ flight, seat: `${row}?` }),
  });
  const v3 = nextVersion(v2, {
    aggregateId: ({ flight }) => flight.number,
    payload: z.strictObject({ flight: z.strictObject({ number: z.string().min(3) }), seat: z.string() }),
    upcast: ({ flight, seat }) => ({ flight: { number: flight }, seat }),
    maxBytes: 10,
  });

  it('reads what was sent as any version as the newest, by one upcaster after the other', () => {
    const newest = { flight: { number: 'OB1' }, seat: '7?' };
    expect(v3.read(1, { flight: 'OB1', row: 7 })).toEqual(newest);
    expect(v3.read(2, { flight: 'OB1', seat: '7?' })).toEqual(newest);
    expect(v3.read(3, newest)).toEqual(newest);
    const seat: string = v3.read(1, { flight: 'OB1', row: 7 }).seat;
    expect(seat).toBe('7?');
  });

  it('checks each payload by the version that it was sent as, and what its upcasters make of it', () => {
    const { row: _, ...stripped } = { flight: 'OB1', row: 7 };
    expect(() => v3.read(1, stripped)).toThrow('SeatBooked v1: the payload breaks its contract: row');
    expect(() => v3.read(2, { flight: 'OB1', row: 7 })).toThrow('SeatBooked v2: the payload breaks its contract');
    expect(() => v3.read(1, { flight: 'OB', row: 7 })).toThrow('SeatBooked v3, upcast from v1: the payload breaks');
  });

  it('has the names and keys of the version before, and what it says of its own', () => {
    expect(versionsOf(v3).map(({ version }) => version)).toEqual([3, 2, 1]);
    expect(v3).toMatchObject({ type: 'SeatBooked', routingKey: 'seat.booked', exchange: 'oncebox.events' });
    expect([v1.maxBytes, v2.maxBytes, v3.maxBytes]).toEqual([262_144, 262_144, 10]);
    expect(v1.message({ flight: 'OB1', row: 1 }).contract.version).toBe(1);
    // @ts-expect-error the payload is that of this version
    v3.message({ flight: 'OB1', row: 1 });
  });
});
