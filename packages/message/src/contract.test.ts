import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { type Contract, defineMessage } from './contract.ts';
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
  ])('refuses %s', (_, change) => {
    expect(() => defineMessage({ ...definition, ...change })).toThrow(
      expect.objectContaining({ code: 'ONCEBOX_INVALID_CONTRACT' }),
    );
    expect(() => defineMessage({ ...definition, ...change })).toThrow(MessageError);
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
