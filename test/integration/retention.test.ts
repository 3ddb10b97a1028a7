import { PROCESSED_MESSAGES } from '@oncebox/inbox';
import { createPool, deleteExpired, keepDeleting, type Pool } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, beforeEach, expect, inject, test } from 'vitest';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

let schemas: TestSchemas;
/** The worker's own user. */
let pool: Pool;
let admin: Pool;
beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  pool = createPool(schemas.fulfilment.url, { connections: 10 });
  admin = createPool(schemas.fulfilment.adminUrl, { connections: 5 });
});
afterAll(async () => {
  await Promise.all([pool.end(), admin.end()]);
  await schemas.drop();
});
beforeEach(async () => {
  await admin.query('DELETE FROM processed_messages');
  await admin.query('UPDATE retention SET forgotten_before = NULL');
});

const PATIENCE = { timeout: 20_000, interval: 20 };
const running = new AbortController().signal;
const clean = (keepHours: number, database = pool) => deleteExpired(database, PROCESSED_MESSAGES, keepHours, running);

/** @param ageSeconds by the database's clock */
async function insert(count: number, ageSeconds: number, consumer = 'c', database = admin): Promise<string[]> {
  const ids = Array.from({ length: count }, () => uuidv7());
  for (let i = 0; i < count; i += 5_000) {
    await database.query(
      `INSERT INTO processed_messages (consumer, message_id, processed_at) VALUES ${ids
        .slice(i, i + 5_000)
        .map(() => '(?, ?, TIMESTAMPADD(SECOND, ?, UTC_TIMESTAMP(6)))')
        .join(',')}`,
      ids.slice(i, i + 5_000).flatMap((id) => [consumer, Buffer.from(id), -ageSeconds]),
    );
  }
  return ids;
}
async function left(): Promise<string[]> {
  const [rows] = await admin.query<RowDataPacket[]>(
    "SELECT CONCAT(consumer, ' ', CAST(message_id AS CHAR)) AS id FROM processed_messages ORDER BY id",
  );
  return rows.map((row) => String(row['id']));
}
async function forgottenBefore(): Promise<Date | null> {
  const [[row]] = await admin.query<(RowDataPacket & { at: Date | null })[]>(
    "SELECT forgotten_before AS at FROM retention WHERE name = 'processed_messages'",
  );
  return row?.at ?? null;
}

test('what is older goes, what is younger stays, and how far back the table remembers is written down', async () => {
  const old = await insert(3, 3_700);
  const [young] = await insert(1, 3_500);
  const [other] = await insert(1, 3_500, 'd');
  const now = Date.now();
  expect(await clean(1)).toBe(old.length);
  expect(await left()).toEqual([`c ${young}`, `d ${other}`]);
  const at = (await forgottenBefore())?.getTime() ?? Number.NaN;
  expect(Math.abs(at - (now - 3_600_000))).toBeLessThan(60_000);
});

test('a row of exactly the limit stays: the limit itself is not forgotten', async () => {
  // One transaction, in which the server's clock is held, so that age and limit meet to the microsecond.
  const frozen = createPool(schemas.fulfilment.url, { connections: 1 });
  await frozen.query('SET timestamp = 1780000000.123456');
  await insert(1, 3_600, 'at the limit', frozen);
  await insert(1, 3_601, 'older', frozen);
  await insert(1, 3_599, 'younger', frozen);
  expect(await clean(1, frozen)).toBe(1);
  expect((await left()).map((id) => id.slice(0, -37))).toEqual(['at the limit', 'younger']);
  await frozen.end();
});

test('with nothing to delete nothing is forgotten', async () => {
  await insert(2, 10);
  expect(await clean(1)).toBe(0);
  expect(await forgottenBefore()).toBeNull();
});

test('what was forgotten stays forgotten when a longer retention is set', async () => {
  await insert(1, 10 * 3_600);
  await clean(1);
  const before = await forgottenBefore();
  await insert(1, 10 * 3_600);
  expect(await clean(5)).toBe(1);
  expect(await forgottenBefore()).toEqual(before);
});

test.each([499, 500, 501, 1_000])('%i rows go in as many batches as it takes', async (count) => {
  await insert(count, 7_200);
  expect(await clean(1)).toBe(count);
  expect(await left()).toEqual([]);
});

test('of two cleaners at once one works, and the other leaves at once', async () => {
  await insert(4_000, 7_200);
  const counts = await Promise.all([clean(1), clean(1), clean(1)]);
  expect(counts.reduce((sum, count) => sum + count)).toBe(4_000);
  expect(await left()).toEqual([]);
  // One that is known to be in the middle:
  const holder = await admin.getConnection();
  await holder.query('BEGIN');
  await holder.query("SELECT name FROM retention WHERE name = 'processed_messages' FOR UPDATE");
  await insert(1, 7_200);
  expect(await clean(1)).toBe(0);
  await holder.query('ROLLBACK');
  holder.release();
  expect(await clean(1)).toBe(1);
});

test('an aborted signal ends it between two batches', async () => {
  await insert(1_500, 7_200);
  const stop = new AbortController();
  const cleaning = deleteExpired(pool, PROCESSED_MESSAGES, 1, stop.signal);
  stop.abort();
  expect(await cleaning).toBe(500);
  expect(await left()).toHaveLength(1_000);
});

test('it reads no more rows than it deletes, in a table that is large', async () => {
  await insert(20_000, 60);
  await insert(500, 7_200);
  const one = createPool(schemas.fulfilment.url, { connections: 1 });
  const reads = async (): Promise<number> => {
    const [rows] = await one.query<RowDataPacket[]>("SHOW SESSION STATUS LIKE 'Handler_read%'");
    return rows.reduce((sum, row) => sum + Number(row['Value']), 0);
  };
  const before = await reads();
  expect(await clean(1, one)).toBe(500);
  // Once to find each, once to lock it and once to delete it.
  expect((await reads()) - before).toBeLessThan(1_600);
  await one.end();
});

test('writers beside two cleaners meet no deadlock, and lose nothing', async () => {
  await insert(20_000, 7_200);
  const stop = new AbortController();
  const written: string[] = [];
  const writer = async (consumer: string): Promise<void> => {
    while (!stop.signal.aborted) {
      const connection = await pool.getConnection();
      await connection.query('SET TRANSACTION ISOLATION LEVEL READ COMMITTED');
      await connection.query('BEGIN');
      for (let i = 0; i < 5; i++) {
        const id = uuidv7();
        await connection.execute('INSERT INTO processed_messages (consumer, message_id) VALUES (?, ?)', [
          consumer,
          Buffer.from(id),
        ]);
        written.push(`${consumer} ${id}`);
      }
      await connection.query('COMMIT');
      connection.release();
    }
  };
  // No retry anywhere: a single 1213 or 1205 rejects.
  const writers = ['a', 'c', 'd', 'z'].map(writer);
  const cleaners = await Promise.all([clean(1), clean(1)]);
  stop.abort();
  await Promise.all(writers);
  expect(cleaners.reduce((sum, count) => sum + count)).toBe(20_000);
  expect(written.length).toBeGreaterThan(0);
  expect(await left()).toEqual(written.sort());
});

test('a worker cleans from its start on, says how much went, and a pass that failed is one of many', async () => {
  await insert(3, 7_200);
  const lines: string[] = [];
  const keep = (_fields: object, text: string): void => void lines.push(text);
  const logger = { info: keep, warn: keep };
  const stop = new AbortController();
  const settings = { keepHours: 1, signal: stop.signal, logger };
  const failing = keepDeleting(pool, { ...PROCESSED_MESSAGES, age: 'no_such_column' }, settings);
  await expect.poll(() => lines, PATIENCE).toHaveLength(1);
  const cleaning = keepDeleting(pool, PROCESSED_MESSAGES, settings);
  await expect.poll(() => lines, PATIENCE).toHaveLength(2);
  expect(lines).toEqual([
    'Could not delete old rows of processed_messages; they stay until a later pass',
    'Deleted 3 rows of processed_messages that were older than 1 h',
  ]);
  stop.abort();
  await Promise.all([cleaning, failing]);
});
