import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { defineCommand, repliesTo, reply, replyTo } from './command.ts';

const to = { saga: 'trip', id: 't-1', step: 'flight', direction: 'forward' } as const;
const BookFlight = defineCommand({
  type: 'BookFlight',
  version: 1,
  owner: 'flights',
  payload: z.strictObject({ replyTo, seats: z.int() }),
});

describe('a command', () => {
  it('goes to its owner alone, is required, and has the saga as its ordering key', () => {
    expect(BookFlight).toMatchObject({
      exchange: 'oncebox.commands',
      routingKey: 'flights.BookFlight',
      delivery: 'required',
      aggregateType: 'saga',
    });
    expect(BookFlight.aggregateId({ replyTo: to, seats: 1 })).toBe('t-1');
  });

  it('is answered to the saga that sent it, with what the answer is to', () => {
    const lineage = { correlationId: 'c-1' };
    const answer = reply({ replyTo: to }, { kind: 'refused', reason: 'full' }, lineage);
    expect(answer.contract).toMatchObject({ type: 'CommandReplied.trip', routingKey: 'trip.CommandReplied' });
    expect(answer).toMatchObject({ payload: { replyTo: to, outcome: { kind: 'refused', reason: 'full' } }, lineage });
  });
});

it('answers to two sagas are two types', () => {
  expect(repliesTo('trip').type).not.toBe(repliesTo('cruise').type);
});
