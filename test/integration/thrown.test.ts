import { createInbox, defineConsumer, NonRetryableError, on } from '@oncebox/inbox';

import { connectBroker, startConsumer } from '@oncebox/rabbitmq';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Stepped, sendStep } from '../support/ordered.ts';
import { HOSTILE } from '../support/thrown.ts';
import { channel, pool, started, vhost } from '../support/walked.ts';

/**
 * Whatever a handler throws, its message ends as a dead letter that says what it was, and costs no
 * other message anything.
 */

const PATIENCE = { timeout: 45_000, interval: 50 };
const GOOD = 50;

interface Line {
  readonly fields: Readonly<Record<string, unknown>>;
  readonly text: string;
}

/** Handles steps; `stumble` may throw after the effect. @returns what it logs. */
async function walk(
  stumble: (n: number, walk: string) => unknown,
  given: { ordered?: boolean; whenDead?: 'hold' | 'continue'; batch?: number; retryDelaysMs?: number[] } = {},
): Promise<readonly Line[]> {
  const name = `thrown-${uuidv7()}`;
  const lines: Line[] = [];
  const write = (fields: object, text: string): void => void lines.push({ fields: { ...fields }, text });
  const logger = { info: write, warn: write, error: write };
  const definition = defineConsumer({
    name,
    retryDelaysMs: [50],
    ...given,
    handlers: [
      on(Stepped, {
        async handle(tx, { id, payload }) {
          await tx.execute('INSERT INTO steps (message_id, walk, n) VALUES (?, ?, ?)', [id, payload.walk, payload.n]);
          stumble(payload.n, payload.walk);
        },
      }),
    ],
  });
  const broker = connectBroker({ urls: [vhost.amqpUrl], name, logger });
  const consumer = startConsumer({ broker, inbox: createInbox(pool, definition), logger, replayPollMs: 50 });
  started.push(consumer, { stop: () => broker.close() });
  await expect.poll(() => consumer.consuming, PATIENCE).toBe(true);
  return lines;
}

const rows = async (sql: string): Promise<RowDataPacket[]> => (await pool.query<RowDataPacket[]>(sql))[0];
const letters = () =>
  rows('SELECT CAST(message_id AS CHAR) AS id, type, reason, error_class, attempts FROM dead_letters ORDER BY id');
const walked = async (): Promise<string[]> =>
  (await rows('SELECT walk, n FROM steps ORDER BY seq')).map((row) => `${row['walk']} ${row['n']}`);
const numbers = (count: number): number[] => Array.from({ length: count }, (_, n) => n);

/** Walks to which nothing happens, two steps each. */
const good = numbers(GOOD).flatMap((n) => [`good-${n} 0`, `good-${n} 1`]);
const sendGood = (): void => {
  for (const n of numbers(GOOD)) for (const step of [0, 1]) sendStep(channel, `good-${n}`, step);
};

describe.each([
  { consumer: 'one with batches', given: {} },
  { consumer: 'one without', given: { batch: 1 } },
  { consumer: 'an ordered one whose keys hold', given: { ordered: true } },
  { consumer: 'an ordered one whose keys continue', given: { ordered: true, whenDead: 'continue' } as const },
])('a consumer: $consumer', ({ given }) => {
  test('F1: gives up each message whose handler throws something odd, and handles all others', async () => {
    await walk((_n, name) => {
      const [, make] = HOSTILE[Number(name.split('odd-')[1])] ?? [];
      if (make !== undefined) throw make();
    }, given);
    const poisonous = HOSTILE.map((_, n) => sendStep(channel, `odd-${n}`, 0));
    sendGood();
    await expect.poll(async () => (await walked()).sort(), PATIENCE).toEqual(good.toSorted());
    await expect.poll(async () => (await letters()).map(({ id }) => id).sort(), PATIENCE).toEqual(poisonous.toSorted());
    for (const { reason, error_class: name, attempts } of await letters()) {
      expect(reason).toMatch(/^[\w$.]+/);
      expect(reason).not.toMatch(/ada/i);
      expect(name).toMatch(/^[\w$.]+$/);
      expect(attempts).toBe(2);
    }
    expect(await rows('SELECT 1 FROM held_keys WHERE due_at IS NOT NULL')).toEqual([]);
  });
});

test('F1: what no attempt can help is dead at once, although another copy of the package made it', async () => {
  class CardRefusedError extends NonRetryableError {}
  await walk((n) => {
    const error = new CardRefusedError('x');
    if (n === 0) throw error;
    if (n === 1) throw Object.assign(error, { name: null, code: 'E_CARD' });
    // As an instance of another copy: of a class that this copy does not know.
    throw Object.assign(new Error('x'), { [Symbol.for('oncebox.non-retryable')]: true });
  });
  for (const n of numbers(3)) sendStep(channel, `card-${n}`, n);
  await expect.poll(letters, PATIENCE).toHaveLength(3);
  const found = await letters();
  expect(found.map(({ attempts }) => attempts)).toEqual([1, 1, 1]);
  expect(found.map(({ error_class: name }) => name).sort()).toEqual(['CardRefusedError', 'Error', 'ThrownError']);
});

/** What only an administrator's hand, or a fault of the server's, does to the rows of one key. */
async function breaks(statement: string): Promise<() => Promise<void>> {
  const name = `broken_${uuidv7().slice(-8)}`;
  await pool.query(`CREATE TRIGGER ${name} ${statement}`);
  let isMended = false;
  const mend = async (): Promise<void> => {
    if (!isMended) await pool.query(`DROP TRIGGER ${name}`);
    isMended = true;
  };
  onTestFinished(mend);
  return mend;
}
const REFUSED = `SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'broken'`;

test.each([
  {
    trouble: 'its dead letter cannot be written, so the key is put off',
    statement: `BEFORE INSERT ON dead_letters FOR EACH ROW IF NEW.message_id IS NOT NULL THEN ${REFUSED}; END IF`,
  },
  {
    trouble: 'nor can its row in held_keys, so that this process leaves the key out',
    statement: `BEFORE UPDATE ON held_keys FOR EACH ROW IF NEW.ordering_key = 'cursed' THEN ${REFUSED}; END IF`,
  },
])(
  'F2: the trouble of one held key is not that of the others: $trouble',
  async ({ statement }) => {
    let cured = false;
    const mend = await breaks(statement);
    // Held for one attempt each, so that the good ones go by the same way.
    const seen = new Set<string>();
    const lines = await walk(
      (n, name) => {
        const isFirst = !seen.has(`${name} ${n}`);
        seen.add(`${name} ${n}`);
        if (isFirst || (name === 'cursed' && !cured)) throw new Error('stumbled');
      },
      { ordered: true },
    );
    const id = sendStep(channel, 'cursed', 0);
    const isTold = ({ fields }: Line): boolean => fields['messageId'] === id || fields['key'] === 'cursed';
    await expect.poll(() => lines.filter(isTold).length, PATIENCE).toBeGreaterThan(2);
    sendGood();
    await expect.poll(async () => (await walked()).sort(), PATIENCE).toEqual(good.toSorted());
    cured = true;
    await mend();
    // The pause of a key that is put off doubles each time: on a busy machine the next look may be
    // a minute away.
    await expect
      .poll(async () => (await walked()).sort(), { ...PATIENCE, timeout: 90_000 })
      .toEqual(['cursed 0', ...good].toSorted());
    await expect.poll(() => rows('SELECT 1 FROM held_keys'), PATIENCE).toEqual([]);
  },
  150_000,
);

test.each([
  { field: 'properties', value: 'no JSON', reason: /^SyntaxError/ },
  { field: 'properties', value: '{}', reason: /^MessageError ONCEBOX_MALFORMED_MESSAGE/ },
  { field: 'properties', value: 'null', reason: /^TypeError/ },
])(
  'F2: a held message that cannot be read any more is a dead letter: $field $value',
  async ({ field, value, reason }) => {
    let stands = true;
    const lines = await walk(
      (_n, name) => {
        if (name === 'unread' && stands) throw new Error('stumbled');
      },
      { ordered: true, whenDead: 'continue', retryDelaysMs: Array(1_000).fill(200) },
    );
    const [id] = [0, 1].map((n) => sendStep(channel, 'unread', n));
    await expect.poll(() => rows('SELECT 1 FROM held_messages'), PATIENCE).toHaveLength(2);
    await pool.query('UPDATE held_messages SET ?? = ? WHERE message_id = ?', [field, value, id]);
    await expect.poll(letters, PATIENCE).toMatchObject([{ id, type: null, reason: expect.stringMatching(reason) }]);
    stands = false;
    await expect.poll(walked, PATIENCE).toEqual(['unread 1']);
    expect(lines.filter(({ fields, text }) => fields['messageId'] === id && /dead letter/.test(text))).toHaveLength(1);
  },
);
