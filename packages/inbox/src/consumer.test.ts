import { defineCommand, defineMessage, nextVersion, replyTo } from '@oncebox/message';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { defineConsumer } from './consumer.ts';
import { on } from './handling.ts';

const contract = (type: string, version: number, routingKey: string) =>
  defineMessage({
    type,
    version,
    aggregateType: 'thing',
    aggregateId: () => 'x',
    routingKey,
    payload: z.strictObject({ a: z.int() }),
  });
const nothing = { handle: async () => undefined };

describe('defineConsumer', () => {
  test('two versions of one message are two handlers of one routing key', () => {
    const [v1, v2] = [contract('Moved', 1, 'thing.moved'), contract('Moved', 2, 'thing.moved')];
    const consumer = defineConsumer({ name: 'reader', handlers: [on(v1, nothing), on(v2, nothing)] });
    expect(consumer.routingKeys).toEqual(['thing.moved']);
    expect(consumer.handlingOf('Moved', 2)?.contract).toBe(v2);
    expect(consumer.handlingOf('Moved', 3)).toBeUndefined();
  });

  test('two handlers of one version are refused, as one would never run', () => {
    const handlers = [on(contract('Moved', 1, 'a'), nothing), on(contract('Moved', 1, 'b'), nothing)];
    expect(() => defineConsumer({ name: 'reader', handlers })).toThrow('two handlers for Moved v1');
  });

  test('a handler of the newest version has the earlier ones too, so that another one for those is refused', () => {
    const v1 = contract('Moved', 1, 'a');
    const v2 = nextVersion(v1, { aggregateId: () => 'x', payload: z.strictObject({}), upcast: () => ({}) });
    const consumer = defineConsumer({ name: 'reader', handlers: [on(v2, nothing)] });
    expect([1, 2, 3].map((version) => consumer.handlingOf('Moved', version)?.contract)).toEqual([v2, v2, undefined]);
    expect(() => defineConsumer({ name: 'reader', handlers: [on(v2, nothing), on(v1, nothing)] })).toThrow(
      'two handlers for Moved v1',
    );
  });

  test('a consumer that handles nothing is refused', () => {
    expect(() => defineConsumer({ name: 'reader', handlers: [] })).toThrow('handles nothing');
  });

  test.each(['', 'Reader', '1st', 'a b', 'ä', 'x'.repeat(101)])('the name %j is refused', (name) => {
    const handlers = [on(contract('Moved', 1, 'a'), nothing)];
    expect(() => defineConsumer({ name, handlers })).toThrow(
      expect.objectContaining({ code: 'ONCEBOX_INVALID_CONSUMER' }),
    );
  });

  const handlers = [on(contract('Moved', 1, 'a'), nothing)];

  test('attempts, delays and deadline have defaults, and each consumer may have its own', () => {
    const usual = defineConsumer({ name: 'reader', handlers });
    expect(usual).toMatchObject({ retryDelaysMs: [1_000, 5_000, 30_000, 120_000, 600_000], deadlineMs: 60_000 });
    const own = { retryDelaysMs: [], deadlineMs: 1_500_000 };
    expect(defineConsumer({ name: 'reader', handlers, ...own })).toMatchObject(own);
  });

  test.each([{ retryDelaysMs: [0] }, { retryDelaysMs: [5, 1.5] }, { retryDelaysMs: [2 ** 31] }, { deadlineMs: 0 }])(
    '%j is refused',
    (bad) => {
      expect(() => defineConsumer({ name: 'reader', handlers, ...bad })).toThrow('whole number of milliseconds');
    },
  );

  test('a deadline at which the broker would have taken the message back is refused', () => {
    expect(() => defineConsumer({ name: 'reader', handlers, deadlineMs: 30 * 60_000 })).toThrow('deadlineMs');
  });

  test('two versions of one type are one type', () => {
    const both = [on(contract('Moved', 1, 'a'), nothing), on(contract('Moved', 2, 'a'), nothing)];
    expect(defineConsumer({ name: 'reader', handlers: both }).types).toEqual(['Moved']);
  });

  test('messages share transactions unless a handler prepares its work', () => {
    const plain = on(contract('Moved', 1, 'a'), nothing);
    const prepared = on(contract('Left', 1, 'b'), { prepare: async () => 1, ...nothing });
    expect(defineConsumer({ name: 'reader', handlers: [plain] }).batch).toBe(100);
    expect(defineConsumer({ name: 'reader', handlers: [plain, prepared] }).batch).toBe(1);
    expect(() => defineConsumer({ name: 'reader', handlers: [plain, prepared], batch: 2 })).toThrow('prepare');
  });

  test.each([0, 1.5, 1_001])('a batch of %j is refused', (batch) => {
    const handlers = [on(contract('Moved', 1, 'a'), nothing)];
    expect(() => defineConsumer({ name: 'reader', handlers, batch })).toThrow('batch must be');
  });

  test('a command is bound on the exchange of commands, and refused to a consumer that does not own it', () => {
    const payload = z.strictObject({ replyTo });
    const Move = defineCommand({ type: 'Move', version: 1, owner: 'mover', payload });
    const handlers = [on(Move, nothing), on(contract('Moved', 1, 'thing.moved'), nothing)];
    expect(defineConsumer({ name: 'mover', handlers })).toMatchObject({
      routingKeys: ['thing.moved'],
      commandKeys: ['mover.Move'],
    });
    expect(() => defineConsumer({ name: 'reader', handlers })).toThrow('the command mover.Move belongs to');
  });
});
