import { tmpdir } from 'node:os';
import { createPool, type Pool } from '@oncebox/mysql';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, beforeEach, inject } from 'vitest';
import { type Ended, startOncebox } from './oncebox.ts';
import { createSchemas, type TestSchemas } from './schemas.ts';

/** Messages as relay and workers leave them, for the tests of what looks at them; each file that imports it has schemas of its own. */

export const BEFORE = '2026-01-01 11:00:00';
/** When `written` messages were written and published. */
export const WRITTEN = '2026-01-01 12:00:00';
export const AFTER = '2026-01-01 13:00:00';

export let schemas: TestSchemas;
/** As the administrator. */
export let shop: Pool;
export let fulfilment: Pool;
export let env: Record<string, string>;

beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  shop = createPool(schemas.shop.adminUrl, { connections: 2 });
  fulfilment = createPool(schemas.fulfilment.adminUrl, { connections: 2 });
  env = {
    RELAY_DATABASE_URLS: schemas.relayUrls,
    API_DATABASE_URL: schemas.shop.url,
    WORKER_DATABASE_URL: schemas.fulfilment.url,
  };
});
const TABLES = [
  'outbox',
  'outbox_waiting',
  'processed_messages',
  'dead_letters',
  'consumers',
  'held_messages',
  'held_keys',
  'claimed_payloads',
];
beforeEach(async () => {
  for (const pool of [shop, fulfilment]) {
    for (const table of TABLES) {
      await pool.query('DELETE FROM ??', [table]);
    }
    await pool.query('UPDATE retention SET forgotten_before = NULL');
    await pool.query('UPDATE outbox_partition SET forgotten_before = NULL');
  }
  for (const consumer of ['welcome-email', 'customer-directory']) await register(consumer, BEFORE);
});
afterAll(async () => {
  await Promise.all([shop.end(), fulfilment.end()]);
  await schemas.drop();
});

export const run = (...args: string[]): Promise<Ended> => startOncebox(args, env, tmpdir()).ended;
export const register = (consumer: string, since: string, type = 'CustomerCreated') =>
  fulfilment.query('INSERT INTO consumers (consumer, type, since) VALUES (?, ?, ?)', [consumer, type, since]);

/** A row of the shop's outbox, as the relay leaves it. */
export async function written(change: Record<string, string | number> = {}): Promise<string> {
  const row = {
    id: uuidv7(),
    aggregatetype: 'customer',
    aggregateid: 'c1',
    type: 'CustomerCreated',
    payload: '{"email":"canary@example.com"}',
    state: 'published',
    created_at: WRITTEN,
    published_at: WRITTEN,
    ...change,
  };
  await shop.query('INSERT INTO outbox (??) VALUES (?)', [Object.keys(row), Object.values(row)]);
  return row.id;
}

export async function handled(id: string, ...consumers: string[]): Promise<void> {
  for (const consumer of consumers) {
    await fulfilment.query('INSERT INTO processed_messages (consumer, message_id) VALUES (?, ?)', [consumer, id]);
  }
}
export const everybody = ['welcome-email', 'customer-directory'];

export const dead = (id: string, state = 'dead') =>
  fulfilment.query(
    `INSERT INTO dead_letters (consumer, message_id, type, routing_key, properties, body, reason, attempts, copy_hash, state)
     VALUES ('welcome-email', ?, 'CustomerCreated', 'customer.created', '{}', '{}', 'ONCEBOX_INVALID_PAYLOAD', 5, RANDOM_BYTES(32), ?)`,
    [id, state],
  );
