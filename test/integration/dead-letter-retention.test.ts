import {
  DEAD_LETTERS,
  forgetDeadLetters,
  inboxForgottenBefore,
  oldestHandledLetterSeconds,
  PROCESSED_MESSAGES,
  requestReplay,
} from '@oncebox/inbox';
import { createPool, deleteExpired, type Pool } from '@oncebox/mysql';
import type { ResultSetHeader, RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it, onTestFinished } from 'vitest';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

let schemas: TestSchemas;
/** The worker's own user, which waits for no lock for longer than a second. */
let pool: Pool;
let admin: Pool;
beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  pool = createPool(schemas.fulfilment.url, { connections: 4, session: { innodb_lock_wait_timeout: 1 } });
  admin = createPool(schemas.fulfilment.adminUrl, { connections: 4 });
});
afterAll(async () => {
  await Promise.all([pool.end(), admin.end()]);
  await schemas.drop();
});
beforeEach(async () => {
  await admin.query('DELETE FROM dead_letters');
  await admin.query('UPDATE retention SET forgotten_before = NULL');
});

const STATES = ['dead', 'replay', 'replayed', 'discarded'] as const;
const PATIENCE = { timeout: 20_000, interval: 20 };

/** @returns its id. */
async function letter(state: (typeof STATES)[number], ageHours: number): Promise<string> {
  const [{ insertId }] = await admin.query<ResultSetHeader>(
    `INSERT INTO dead_letters (consumer, message_id, routing_key, properties, body, reason, attempts, copy_hash, state, updated_at)
     VALUES ('c', ?, 'k', '{}', '{}', 'r', 1, RANDOM_BYTES(32), ?, TIMESTAMPADD(HOUR, ?, UTC_TIMESTAMP(6)))`,
    [uuidv7(), state, -ageHours],
  );
  return String(insertId);
}
const left = async (): Promise<string[]> =>
  (await admin.query<RowDataPacket[]>('SELECT CAST(id AS CHAR) AS n FROM dead_letters ORDER BY id'))[0].map(
    (row) => row['n'],
  );
async function clean(keepHours: number, signal = new AbortController().signal): Promise<number> {
  let deleted = 0;
  for (const retained of DEAD_LETTERS) deleted += await deleteExpired(pool, retained, keepHours, signal);
  return deleted;
}

describe('dead letters', () => {
  it('I16: that were replayed or discarded go when they are old, and no other', async () => {
    const ids: Record<string, string> = {};
    for (const state of STATES) for (const age of [1, 900]) ids[`${state} ${age}`] = await letter(state, age);
    expect(await oldestHandledLetterSeconds(pool)).toBeGreaterThanOrEqual(900 * 3_600);
    expect(await clean(720)).toBe(2);
    const gone = [ids['replayed 900'], ids['discarded 900']];
    expect(await left()).toEqual(Object.values(ids).filter((id) => !gone.includes(id)));
    expect(await oldestHandledLetterSeconds(pool)).toBeLessThan(2 * 3_600);
    await admin.query("DELETE FROM dead_letters WHERE state IN ('replayed', 'discarded')");
    expect(await oldestHandledLetterSeconds(pool)).toBeNull();
  });

  it('I16: go from the start of a worker on, and never with a retention of 0', async () => {
    for (let count = 0; count < 3; count++) await letter('replayed', 900);
    await letter('discarded', 900);
    const lines: string[] = [];
    const log = (_fields: object, text: string): void => void lines.push(text);
    const stop = new AbortController();
    const settings = { signal: stop.signal, logger: { info: log, warn: log } };
    await forgetDeadLetters(pool, { ...settings, keepHours: 0 });
    expect(await left()).toHaveLength(4);
    const forgetting = forgetDeadLetters(pool, { ...settings, keepHours: 720 });
    await expect.poll(left, PATIENCE).toEqual([]);
    stop.abort();
    await forgetting;
    expect(lines).toEqual([
      'Deleted 3 rows of dead_letters that were older than 720 h',
      'Deleted 1 rows of dead_letters that were older than 720 h',
    ]);
  });

  it('I16: go in batches, beside rows that an operator has locked, and beside letters of any number', async () => {
    for (let count = 0; count < 1_010; count++) await letter('discarded', 900);
    const [first, , third] = await left();
    const unhandled = await letter('dead', 900);
    const operator = await admin.getConnection();
    onTestFinished(() => operator.destroy());
    await operator.query('BEGIN');
    await operator.query('SELECT id FROM dead_letters WHERE id IN (?) FOR UPDATE', [[first, third, unhandled]]);
    expect(await clean(720)).toBe(1_008);
    expect(await left()).toEqual([first, third, unhandled]);
    await operator.query("UPDATE dead_letters SET state = 'replay' WHERE id = ?", [first]);
    await operator.query('COMMIT');
    expect(await clean(720)).toBe(1);
    expect(await left()).toEqual([first, unhandled]);
  });

  it('I16: are replayed while others are deleted, and the replay waits for none of these', async () => {
    const [wanted, others] = [await letter('dead', 900), await letter('replayed', 900)];
    const cleaner = await admin.getConnection();
    onTestFinished(() => cleaner.destroy());
    await cleaner.query('BEGIN');
    await cleaner.query('DELETE FROM dead_letters WHERE id = ?', [others]);
    expect(await requestReplay(pool, [wanted])).toEqual(new Map([[wanted, 'replay']]));
    await cleaner.query('COMMIT');
  });
});

describe('a row of retention that somebody deleted', () => {
  it('I17: is put back by the cleaner, and nothing from before counts as remembered', async () => {
    const id = await letter('dead', 1);
    expect(await inboxForgottenBefore(pool)).toBeUndefined();
    await admin.query('DELETE FROM retention');
    expect(await requestReplay(pool, [id])).toEqual(new Map([[id, 'forgotten']]));
    expect(await inboxForgottenBefore(pool)).toMatch(/^\d{4}-/);
    const running = new AbortController().signal;
    await letter('discarded', 900);
    expect(await clean(720)).toBe(1);
    expect(await deleteExpired(pool, PROCESSED_MESSAGES, 1, running)).toBe(0);
    const [rows] = await admin.query<RowDataPacket[]>(
      'SELECT name, forgotten_before <= UTC_TIMESTAMP(6) AS known FROM retention ORDER BY name',
    );
    expect(rows).toEqual([
      { name: 'dead_letters', known: 1 },
      { name: 'processed_messages', known: 1 },
    ]);
    expect(await requestReplay(pool, [id])).toEqual(new Map([[id, 'forgotten']]));
    for (const name of ['claimed_payloads', 'sagas'])
      await admin.query('INSERT INTO retention (name) VALUES (?)', [name]);
  });
});
