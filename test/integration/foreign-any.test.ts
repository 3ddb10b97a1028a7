import { randomBytes } from 'node:crypto';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { createInbox, defineConsumer, NonRetryableError, on } from '@oncebox/inbox';
import type { SettledSignal } from '@oncebox/rabbitmq';
import fc from 'fast-check';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { newName, OrderError, PATIENCE, vhost } from '../support/consumers.ts';
import { checkedBy, consumeWith, letters, pool, publish } from '../support/dead-letters.ts';
import {
  connectForeign,
  type Fields,
  type Foreign,
  nestedArrays,
  propertiesOf,
  type Sender,
  value,
} from '../support/foreign.ts';

/**
 * Whatever a program sends ends handled or dead with a reason, and delays no message of another.
 */

/** A run sends them in one go. */
const MESSAGES = 40;
const RUNS = 6;
/**
 * A header frame's payload, as client and broker agree, without what comes before the properties.
 */
const MOST_BYTES = 131_072 - 8 - 12;

let foreign: Sender;
const settled = new Map<string, number>();
const note = (message: unknown): void => {
  const { consumer, result } = message as SettledSignal;
  if (['handled', 'duplicate', 'skipped'].includes(result)) settled.set(consumer, (settled.get(consumer) ?? 0) + 1);
};
beforeAll(async () => {
  foreign = await connectForeign();
  subscribe('oncebox:consumer:settled', note);
});
afterAll(async () => {
  unsubscribe('oncebox:consumer:settled', note);
  await foreign.close();
});

const bytes = (maxLength: number) => fc.uint8Array({ maxLength }).map((array) => Buffer.from(array));
const shortText = fc.oneof(fc.string({ unit: 'binary', maxLength: 60 }), bytes(255));
const uint = (bits: number) => fc.integer({ min: 0, max: 2 ** bits - 1 });
const int = (bits: number) => fc.integer({ min: -(2 ** (bits - 1)), max: 2 ** (bits - 1) - 1 });
const long = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
const finite = { noNaN: true, noDefaultInfinity: true } as const;

/** Those to which somebody gives a meaning, and any other. */
const NAMES = [
  'schemaversion',
  'cloudEvents:time',
  'cloudEvents:subject',
  'oncebox-replay',
  'partition',
  'traceparent',
  'x-death',
  'x-delivery-count',
  'x-acquired-count',
  'x-first-death-queue',
  'x-oncebox-attempts',
  'x-oncebox-consumer',
  'x-oncebox-reason',
  'x-oncebox-routing-key',
  'x-oncebox-first-failure',
  'x-oncebox-wrapped',
  'x-oncebox-set-aside',
  '__proto__',
  'constructor',
  '!',
  '',
];
const name = fc.oneof(fc.constantFrom(...NAMES), bytes(20));

/** A value of any type that a broker takes, in any depth. */
const { fields } = fc.letrec<{ field: Buffer; fields: Fields }>((tie) => ({
  field: fc.oneof(
    { depthSize: 'small' },
    shortText.map(value.S),
    bytes(300).map(value.x),
    int(8).map(value.b),
    uint(8).map(value.B),
    int(16).map(value.s),
    uint(16).map(value.u),
    int(32).map(value.I),
    uint(32).map(value.i),
    long.map(value.l),
    long.map((n) => Buffer.concat([Buffer.from('L'), value.l(n).subarray(1)])),
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map(value.T),
    fc.double(finite).map(value.d),
    fc.float(finite).map(value.f),
    fc.tuple(uint(8), uint(32)).map(([places, digits]) => value.D(places, digits)),
    fc.boolean().map(value.t),
    fc.constant(value.V()),
    // At more levels the broker takes seconds, to take the message from its sender alone.
    fc.integer({ min: 20, max: 3_000 }).map(nestedArrays),
    fc.integer({ min: 1_000, max: 130_000 }).map((length) => value.S('x'.repeat(length))),
    tie('fields').map(value.F),
    fc.array(tie('field'), { maxLength: 4 }).map(value.A),
  ),
  fields: fc.array(fc.tuple(name, tie('field')), { maxLength: 6 }),
}));

const rare = <T>(given: fc.Arbitrary<T>) => fc.option(given, { nil: undefined, freq: 3 });
const version: Fields[number] = ['schemaversion', value.b(1)];
const message = fc
  .record({
    given: fc.record({
      contentType: rare(fc.constantFrom('application/json', '', 'x')),
      contentEncoding: rare(fc.constantFrom('gzip', '')),
      headers: fc.oneof(
        fields,
        fields.map((given) => [version, ...given]),
        fc.constant(undefined),
      ),
      priority: rare(uint(8)),
      correlationId: rare(fc.string({ unit: 'binary', maxLength: 60 })),
      replyTo: rare(fc.constantFrom('oncebox.events', 'amq.rabbitmq.reply-to.x', '')),
      expiration: rare(fc.constantFrom('60000', '0')),
      messageId: fc.constantFrom('new', 'new', 'new', 'new', 'bytes', undefined),
      timestamp: rare(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
      type: fc.oneof(fc.constant('Checked'), rare(shortText)),
      appId: rare(fc.string({ unit: 'binary', maxLength: 60 })),
    }),
    body: fc.oneof(
      fc.constantFrom('{"a":0}', '{"a":1}', '{"a":2}', '').map((text) => Buffer.from(text)),
      bytes(100),
    ),
    target: fc.constantFrom<'exchange' | 'queue' | 'dead'>('exchange', 'exchange', 'queue', 'dead'),
  })
  // In the dead queue it is the end of a message, and its sender's will.
  .filter(({ given, target }) => target !== 'dead' || given.expiration === undefined)
  .filter(({ given }) => propertiesOf(sound(given)).length <= MOST_BYTES);

/**
 * Without what is not given, and with an id of its own for each that has one: of the same id they
 * were one message.
 */
function sound({ messageId, ...given }: { [Name in keyof Foreign]: Foreign[Name] | undefined }): Foreign {
  const present = Object.entries({
    ...given,
    messageId: messageId === 'bytes' ? randomBytes(60) : messageId && uuidv7(),
  });
  return Object.fromEntries(present.filter(([, property]) => property !== undefined));
}

test.each([
  ['an unordered consumer', false],
  ['an ordered consumer', true],
])(
  'E5: %s ends whatever is sent to it, and handles what others send meanwhile',
  { timeout: 120_000 },
  async (_, ordered) => {
    const consumer = newName();
    const seen = new Set<string>();
    const handlers = [
      on(checkedBy(consumer), {
        async handle(_tx, { id, payload }) {
          if (payload.a === 0) throw new NonRetryableError();
          if (payload.a === 1) throw new OrderError();
          seen.add(id);
        },
      }),
    ];
    const settings = { name: consumer, handlers, retryDelaysMs: [20, 30] };
    const definition = ordered ? { ...settings, ordered: true, whenDead: 'continue' as const } : settings;
    const running = await consumeWith(createInbox(pool, defineConsumer(definition)));
    const queue = ordered ? `${consumer}.0` : consumer;
    const targets = {
      exchange: { exchange: 'oncebox.events', routingKey: `${consumer}.checked` },
      queue: { exchange: '', routingKey: queue },
      dead: { exchange: '', routingKey: `${consumer}.dead` },
    };
    let sent = 0;
    const ended = async (): Promise<number> => (settled.get(consumer) ?? 0) + (await letters(consumer)).length;
    await fc.assert(
      fc.asyncProperty(fc.array(message, { minLength: MESSAGES, maxLength: MESSAGES }), async (messages) => {
        for (const { given, body, target } of messages) foreign.send(targets[target], sound(given), body);
        await foreign.confirmed();
        const innocent = publish(consumer, {}, '{"a":2}');
        sent += messages.length + 1;
        await expect.poll(() => seen.has(innocent), PATIENCE).toBe(true);
        await expect.poll(ended, PATIENCE).toBe(sent);
      }),
      { numRuns: RUNS, endOnFailure: true },
    );
    for (const letter of await letters(consumer)) expect(letter['reason']).toMatch(/\S/);
    await running.stop();
    for (const each of [queue, `${consumer}.dead`, `${consumer}.set-aside`]) expect(await vhost.depth(each)).toBe(0);
  },
);

test('E5: a message that is nested deeper than the client library can read closes nobody’s connection', async () => {
  const consumer = newName();
  const seen: string[] = [];
  const handlers = [
    on(checkedBy(consumer), {
      async handle(_tx, { id, payload }) {
        if (payload.a === 1) throw new OrderError();
        seen.push(id);
      },
    }),
  ];
  await consumeWith(createInbox(pool, defineConsumer({ name: consumer, handlers, retryDelaysMs: [20] })));
  const headers: Fields = [version, ['deep', nestedArrays(14_000)]];
  const given = { messageId: uuidv7(), type: 'Checked', headers };
  foreign.send({ exchange: '', routingKey: consumer }, given, Buffer.from('{"a":1}'));
  const innocents = Array.from({ length: 20 }, () => publish(consumer, {}, '{"a":2}'));
  await expect.poll(() => seen.toSorted(), PATIENCE).toEqual(innocents.toSorted());
  const letter = { message: given.messageId, attempts: 2, reason: 'OrderError E_ORDER' };
  await expect.poll(() => letters(consumer), PATIENCE).toMatchObject([letter]);
});
