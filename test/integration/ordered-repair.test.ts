import { createInbox, defineConsumer, discardDeadLetters, NonRetryableError, on, requestReplay } from '@oncebox/inbox';
import { connectBroker, startConsumer } from '@oncebox/rabbitmq';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { describe, expect, it } from 'vitest';
import { Stepped, sendStep } from '../support/ordered.ts';
import { channel, pool, started, vhost } from '../support/walked.ts';

/** What somebody changes in the tables of an ordered consumer stops none of its keys. */

const PATIENCE = { timeout: 45_000, interval: 50 };
const quiet = { info() {}, warn() {}, error() {} };

const rows = async (sql: string): Promise<RowDataPacket[]> => (await pool.query<RowDataPacket[]>(sql))[0];
const steps = async (): Promise<string[]> =>
  (await rows('SELECT walk, n FROM steps ORDER BY seq')).map((row) => `${row['walk']}${row['n']}`);

/**
 * Key a waits for what becomes of the dead letter of a1; a2 and a3 wait behind it.
 *
 * @returns the letter's id, and what lets a1 succeed from then on.
 */
async function waiting(whatFails = 'a1'): Promise<{ letter: string; name: string; mend: () => void }> {
  const name = `walker-${uuidv7()}`;
  let fails = true;
  const definition = defineConsumer({
    name,
    ordered: true,
    retryDelaysMs: [50],
    handlers: [
      on(Stepped, {
        async handle(tx, { id, payload: { walk, n } }) {
          if (fails && `${walk}${n}` === whatFails) throw new NonRetryableError('stumbled');
          await tx.execute('INSERT INTO steps (message_id, walk, n) VALUES (?, ?, ?)', [id, walk, n]);
        },
      }),
    ],
  });
  const broker = connectBroker({ urls: [vhost.amqpUrl], name, logger: quiet });
  const consumer = startConsumer({ broker, inbox: createInbox(pool, definition), logger: quiet, replayPollMs: 50 });
  started.push(consumer, { stop: () => broker.close() });
  await expect.poll(() => consumer.consuming, PATIENCE).toBe(true);
  for (const n of [1, 2, 3]) sendStep(channel, 'a', n);
  await expect.poll(() => rows('SELECT 1 FROM held_messages'), PATIENCE).toHaveLength(3);
  await expect.poll(() => rows('SELECT 1 FROM dead_letters'), PATIENCE).toHaveLength(1);
  const [letter] = await rows('SELECT CAST(id AS CHAR) AS id FROM dead_letters');
  return {
    letter: String(letter?.['id']),
    name,
    mend: () => {
      fails = false;
    },
  };
}

const expectSteps = (...expected: string[]) => expect.poll(steps, PATIENCE).toEqual(expected);
const nothingIsHeld = () =>
  expect.poll(() => rows('SELECT 1 FROM held_messages UNION ALL SELECT 1 FROM held_keys'), PATIENCE).toEqual([]);

const DELETE_HEAD = 'DELETE FROM held_messages ORDER BY seq LIMIT 1';
const DELETE_ALL = 'DELETE FROM held_messages';

/** What is typed once a1 would succeed, and what is handled then. */
const TYPED: [what: string, statements: string[], handled: string[]][] = [
  ['the first message deleted', [DELETE_HEAD], ['a2', 'a3']],
  ['all messages deleted', [DELETE_ALL], []],
  ['the key deleted', ['DELETE FROM held_keys'], ['a1', 'a2', 'a3']],
  ['the letter of the key forgotten', ['UPDATE held_keys SET dead_letter = NULL'], ['a1', 'a2', 'a3']],
  ['the letter deleted', ['DELETE FROM dead_letters'], ['a2', 'a3']],
  ['the letter discarded', ["UPDATE dead_letters SET state = 'discarded'"], ['a2', 'a3']],
  ['the letter marked as replayed', ["UPDATE dead_letters SET state = 'replayed'"], ['a1', 'a2', 'a3']],
  ['the letter given to another consumer', ["UPDATE dead_letters SET consumer = 'x'"], ['a1', 'a2', 'a3']],
  ['the letter given to another message', ["UPDATE dead_letters SET message_id = 'x'"], ['a1', 'a2', 'a3']],
  ['the key given another letter', ['UPDATE held_keys SET dead_letter = dead_letter + 1000000'], ['a2', 'a3']],
  ['the key renamed', ["UPDATE held_keys SET ordering_key = 'x'"], ['a1', 'a2', 'a3']],
  [
    'the key renamed to what is not UTF-8',
    [
      "UPDATE held_keys SET ordering_key = X'FF80', due_at = UTC_TIMESTAMP(6)",
      "UPDATE held_messages SET ordering_key = X'FF80'",
    ],
    ['a1', 'a2', 'a3'],
  ],
  [
    'the messages given a key that is not UTF-8',
    ["UPDATE held_messages SET ordering_key = X'FF80'"],
    ['a1', 'a2', 'a3'],
  ],
  [
    'as many attempts as the column holds',
    ['UPDATE held_keys SET attempts = 4294967295, due_at = UTC_TIMESTAMP(6)'],
    ['a1', 'a2', 'a3'],
  ],
  [
    'a first failure at no time',
    ["UPDATE held_keys SET first_failed_at = '0001-01-01', due_at = UTC_TIMESTAMP(6)"],
    ['a1', 'a2', 'a3'],
  ],
];

describe('an ordered consumer', () => {
  it.each(TYPED)('I18: goes on with a key, after %s', async (_what, statements, handled) => {
    const { mend } = await waiting();
    mend();
    for (const statement of statements) await pool.query(statement);
    await expectSteps(...handled);
    await nothingIsHeld();
    sendStep(channel, 'a', 4);
    await expectSteps(...handled, 'a4');
  });

  it('I18: replays a letter whose message somebody deleted, and alters no message behind it', async () => {
    const { letter, mend } = await waiting();
    mend();
    await pool.query(DELETE_HEAD);
    await requestReplay(pool, [letter]);
    await expect.poll(async () => (await steps()).toSorted(), PATIENCE).toEqual(['a1', 'a2', 'a3']);
    await nothingIsHeld();
  });

  it('I18: replays a letter of which nothing else is left', async () => {
    const { letter, mend } = await waiting();
    mend();
    await pool.query(DELETE_ALL);
    await requestReplay(pool, [letter]);
    await expectSteps('a1');
    await nothingIsHeld();
  });

  it('I18: drops no message behind a discarded one that somebody deleted', async () => {
    const { letter } = await waiting();
    await pool.query(DELETE_HEAD);
    await discardDeadLetters(pool, [letter]);
    await expectSteps('a2', 'a3');
    await nothingIsHeld();
  });

  it('I18: gives a message up that is said to have ended as many processes as the column holds', async () => {
    const { mend } = await waiting();
    mend();
    await pool.query('UPDATE held_keys SET begun = 4294967295, due_at = UTC_TIMESTAMP(6)');
    await expect.poll(() => rows('SELECT 1 FROM dead_letters'), PATIENCE).toHaveLength(2);
    const [crashed] = await rows(
      'SELECT CAST(d.id AS CHAR) AS id, reason FROM dead_letters AS d ORDER BY d.id DESC LIMIT 1',
    );
    expect(crashed?.['reason']).toContain('ONCEBOX_HANDLER_CRASHED');
    await requestReplay(pool, [String(crashed?.['id'])]);
    await expectSteps('a1', 'a2', 'a3');
  });

  it('I18: makes no more than one dead letter of a message whose letter was given to another', async () => {
    await waiting();
    await pool.query("UPDATE dead_letters SET message_id = 'x'");
    await expect.poll(() => rows('SELECT 1 FROM dead_letters'), PATIENCE).toHaveLength(2);
    sendStep(channel, 'b', 1);
    await expectSteps('b1');
    expect(await rows('SELECT 1 FROM held_messages')).toHaveLength(3);
    expect(await rows('SELECT 1 FROM dead_letters')).toHaveLength(2);
  });
});
