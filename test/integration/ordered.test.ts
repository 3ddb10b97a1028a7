import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { createInbox, defineConsumer, discardDeadLetters, NonRetryableError, on, requestReplay } from '@oncebox/inbox';

import { connectBroker, startConsumer } from '@oncebox/rabbitmq';
import type { RowDataPacket } from 'mysql2/promise';
import { expect, onTestFinished, test } from 'vitest';
import { Stepped, sendStep, stepOnTheWire } from '../support/ordered.ts';
import { channel, pool, started, vhost } from '../support/walked.ts';

/** An ordered consumer in this process; how it fares when processes die is in test/faults. */

const PATIENCE = { timeout: 30_000, interval: 50 };
const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined };

/** Handles steps; `stumble` may throw after the effect. */
async function walk(
  stumble: (n: number) => void,
  given: { whenDead?: 'hold' | 'continue'; retryDelaysMs?: number[] } = {},
): Promise<void> {
  const definition = defineConsumer({
    name: 'walker',
    ordered: true,
    retryDelaysMs: [50, 50],
    ...given,
    handlers: [
      on(Stepped, {
        async handle(tx, { id, payload }) {
          await tx.execute('INSERT INTO steps (message_id, walk, n) VALUES (?, ?, ?)', [id, payload.walk, payload.n]);
          stumble(payload.n);
        },
      }),
    ],
  });
  const broker = connectBroker({ urls: [vhost.amqpUrl], name: 'walker', logger: quiet });
  const inbox = createInbox(pool, definition);
  const consumer = startConsumer({ broker, inbox, logger: quiet, replayPollMs: 50 });
  started.push(consumer, { stop: () => broker.close() });
  await expect.poll(() => consumer.consuming, PATIENCE).toBe(true);
}

const rows = async (sql: string): Promise<RowDataPacket[]> => (await pool.query<RowDataPacket[]>(sql))[0];
const steps = async (name: string): Promise<number[]> =>
  (await rows('SELECT walk, n FROM steps ORDER BY seq')).filter((row) => row['walk'] === name).map((row) => row['n']);
const letters = async (): Promise<string[]> =>
  (await rows('SELECT CAST(id AS CHAR) AS letter FROM dead_letters')).map((row) => String(row['letter']));
const nothingIsHeld = () =>
  expect.poll(() => rows('SELECT 1 FROM held_messages UNION ALL SELECT 1 FROM held_keys'), PATIENCE).toEqual([]);

const stumblesAt = (n: number, error = new Error('stumbled')) => {
  let stands = true;
  return {
    stumble: (at: number): void => {
      if (at === n && stands) throw error;
    },
    clear: (): void => {
      stands = false;
    },
  };
};

test('a message that fails holds its key and no other, until it succeeds', async () => {
  const stone = stumblesAt(2);
  await walk(stone.stumble, { retryDelaysMs: Array(1_000).fill(50) });
  for (let n = 0; n < 20; n++) sendStep(channel, 'stony', n);
  for (let n = 100; n < 120; n++) sendStep(channel, 'smooth', n);
  await expect.poll(() => steps('smooth'), PATIENCE).toHaveLength(20);
  await expect.poll(() => rows('SELECT 1 FROM held_messages'), PATIENCE).toHaveLength(18);
  expect(await steps('stony')).toEqual([0, 1]);
  stone.clear();
  await expect.poll(() => steps('stony'), PATIENCE).toEqual(Array.from({ length: 20 }, (_, n) => n));
  await nothingIsHeld();
  expect(await letters()).toEqual([]);
});

test.each([
  { decision: 'replayed', decide: requestReplay, expected: [0, 1, 2, 3, 4] },
  { decision: 'discarded', decide: discardDeadLetters, expected: [0, 1, 3, 4] },
])('hold: after its last attempt a message holds its key until it is $decision', async ({ decide, expected }) => {
  const stone = stumblesAt(2);
  await walk(stone.stumble);
  for (let n = 0; n < 5; n++) sendStep(channel, 'stony', n);
  await expect.poll(letters, PATIENCE).toHaveLength(1);
  await expect.poll(() => rows('SELECT 1 FROM held_messages'), PATIENCE).toHaveLength(3);
  expect(await steps('stony')).toEqual([0, 1]);
  stone.clear();
  await decide(pool, await letters());
  await expect.poll(() => steps('stony'), PATIENCE).toEqual(expected);
  await nothingIsHeld();
});

test('continue: after its last attempt the key goes on without it, and a replay comes last', async () => {
  const stone = stumblesAt(2);
  await walk(stone.stumble, { whenDead: 'continue' });
  for (let n = 0; n < 5; n++) sendStep(channel, 'stony', n);
  await expect.poll(() => steps('stony'), PATIENCE).toEqual([0, 1, 3, 4]);
  stone.clear();
  await requestReplay(pool, await letters());
  await expect.poll(() => steps('stony'), PATIENCE).toEqual([0, 1, 3, 4, 2]);
  await nothingIsHeld();
});

test.each([
  { given: { whenDead: 'continue' } as const, decide: async () => undefined, expected: [0, 1, 3] },
  { given: {}, decide: discardDeadLetters, expected: [0, 1, 3] },
])('a later copy of a message that was given up is not tried anew %#', async ({ given, decide, expected }) => {
  const stone = stumblesAt(2);
  await walk(stone.stumble, given);
  const [, , id = ''] = [0, 1, 2, 3].map((n) => sendStep(channel, 'stony', n));
  await expect.poll(letters, PATIENCE).toHaveLength(1);
  await decide(pool, await letters());
  await expect.poll(() => steps('stony'), PATIENCE).toEqual(expected);
  stone.clear();
  sendStep(channel, 'stony', 2, { id });
  sendStep(channel, 'stony', 4);
  await expect.poll(() => steps('stony'), PATIENCE).toEqual([...expected, 4]);
  await nothingIsHeld();
});

test('a held message whose key nobody has noted, as its process died just then, is found', async () => {
  await walk(() => undefined, { retryDelaysMs: [600_000] });
  // As a message is held that comes behind another, which is done by then.
  const { body, properties } = stepOnTheWire('orphan', 7);
  await pool.query(
    `INSERT INTO held_messages (consumer, ordering_key, message_id, routing_key, properties, body)
     VALUES ('walker', 'orphan', ?, ?, ?, ?)`,
    [properties.messageId, Stepped.routingKey, JSON.stringify(properties), body],
  );
  await expect.poll(() => steps('orphan'), PATIENCE).toEqual([7]);
  await nothingIsHeld();
});

test('a message that fails and cannot be held goes to the dead queue, and its key goes on', async () => {
  const stone = stumblesAt(1);
  await walk(stone.stumble);
  await pool.query("ALTER TABLE held_messages ADD CONSTRAINT full CHECK (ordering_key <> 'stony')");
  try {
    for (let n = 0; n < 4; n++) sendStep(channel, 'stony', n);
    await expect.poll(() => steps('stony'), PATIENCE).toEqual([0, 2, 3]);
    await expect.poll(letters, PATIENCE).toHaveLength(1);
  } finally {
    await pool.query('ALTER TABLE held_messages DROP CONSTRAINT full');
  }
});

test('a NonRetryableError is dead at once, with its attempts and without the data of the message, and is told as dead', async () => {
  const results: unknown[] = [];
  const hear = (message: unknown) => void results.push(Reflect.get(Object(message), 'result'));
  subscribe('oncebox:consumer:settled', hear);
  onTestFinished(() => void unsubscribe('oncebox:consumer:settled', hear));
  await walk(stumblesAt(0, new NonRetryableError('stony')).stumble, { whenDead: 'continue' });
  sendStep(channel, 'stony', 0);
  await expect.poll(() => results, PATIENCE).toEqual(['dead']);
  await expect
    .poll(() => rows('SELECT consumer, type, reason, error_class, attempts, state FROM dead_letters'), PATIENCE)
    .toEqual([
      {
        consumer: 'walker',
        type: 'Stepped',
        reason: 'NonRetryableError',
        error_class: 'NonRetryableError',
        attempts: 1,
        state: 'dead',
      },
    ]);
});

test('messages without a partition are handled too, and a copy has no second effect', async () => {
  await walk(() => undefined);
  const id = sendStep(channel, 'wild', 0, { partitioned: false });
  sendStep(channel, 'wild', 0, { partitioned: false, id });
  sendStep(channel, 'wild', 1, { partitioned: false });
  await expect.poll(() => steps('wild'), PATIENCE).toEqual([0, 1]);
});
