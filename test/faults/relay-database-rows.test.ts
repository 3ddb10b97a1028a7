import { createPool, transaction } from '@oncebox/mysql';
import { retryNow } from '@oncebox/outbox';
import { v7 as uuidv7 } from 'uuid';
import { expect, it, onTestFinished } from 'vitest';
import { createCustomer, deliver, newSystem, type RecordedSystem, shopPool } from '../support/customers.ts';
import { checkInvariants } from '../support/invariants.ts';
import { startProxy } from '../support/proxy.ts';
import { seeded } from '../support/seeded.ts';

const PATIENCE = { timeout: 60_000, interval: 50 };
/** A power of two. */
const PURGED = 8_192;
const SEED = Number(process.env['ONCEBOX_SEED'] ?? 21);

const ids = async ({ shop }: RecordedSystem): Promise<string[]> =>
  (await shop('SELECT id FROM outbox')).map((row) => String(row['id'])).sort();

const STATES = [
  ['pending', 0],
  ['pending', 1],
  ['published', 0],
  ['parked', 0],
  ['parked', 1],
] as const;
/** Minutes. */
const AGES = [0, 30, 58, 62, 90, 10_000] as const;

/** Rows in every state, of every age, of many keys. @returns the ids that a retention of one hour must leave. */
async function fillAtRandom({ shop }: RecordedSystem, count: number): Promise<string[]> {
  const random = seeded(SEED);
  const oneOf = <T>(choices: readonly T[]): T =>
    choices[Math.floor(random() * choices.length)] ?? expect.fail('no choice');
  const ago = (minutes: number) => `TIMESTAMPADD(MINUTE, -${minutes}, UTC_TIMESTAMP(6))`;
  const made = Array.from({ length: count }, (_, n) => {
    const [state, held] = oneOf(STATES);
    const published = oneOf(AGES);
    const created = published + oneOf(AGES);
    const publishedAt = state === 'published' ? ago(published) : 'NULL';
    const id = uuidv7();
    return {
      id,
      stays: state !== 'published' || published < 60,
      sql: `('${id}', 'thing', '${n % 50}', 'Made', 1, '{}', '${state}', ${held}, ${ago(created)}, ${publishedAt})`,
    };
  });
  await shop(
    `INSERT INTO outbox (id, aggregatetype, aggregateid, type, version, payload, state, held, created_at, published_at)
     VALUES ${made.map(({ sql }) => sql).join()}`,
  );
  return made
    .filter(({ stays }) => stays)
    .map(({ id }) => id)
    .sort();
}

it('21: retention deletes what was published before it and nothing else, in any state and of any age, beside writers', async () => {
  const system = await newSystem();
  const nowhere = await startProxy(system.vhost.amqpUrl);
  await nowhere.refuse(); // so that a row that is pending stays so
  const stay = await fillAtRandom(system, 400);
  const cleaner = system.relay({ AMQP_URL: nowhere.url, RELAY_RETENTION_HOURS: '1' });
  await expect.poll(async () => (await ids(system)).length, PATIENCE).toBeLessThanOrEqual(stay.length);
  expect(await ids(system), `seed ${SEED}`).toEqual(stay);
  cleaner.kill('SIGTERM');
  await cleaner.exited;
  await system.shop('DELETE FROM outbox');

  // A purge of many batches, and writers that may meet no deadlock and wait for no lock: each write has one attempt.
  const columns =
    'INSERT INTO outbox (id, aggregatetype, aggregateid, type, version, payload, state, created_at, published_at)';
  await system.shop(
    `${columns} VALUES (UUID(), 'thing', '0', 'Made', 1, '{}', 'published', '2020-01-01', '2020-01-01')`,
  );
  for (let rows = 1; rows < PURGED; rows *= 2) {
    await system.shop(
      `${columns} SELECT UUID(), 'thing', seq % 100, type, version, payload, state, created_at, published_at FROM outbox`,
    );
  }
  await system.worker().ready();
  system.relay({ RELAY_RETENTION_HOURS: '1' });
  const pool = shopPool(system);
  const accepted: string[] = [];
  const took: number[] = [];
  const old = async () => (await system.shop("SELECT 1 FROM outbox WHERE aggregatetype = 'thing' LIMIT 1")).length;
  let purged = false;
  const write = async (): Promise<void> => {
    while (!purged) {
      const begun = performance.now();
      accepted.push((await transaction(pool, createCustomer, { attempts: 1 })).id);
      took.push(Math.round(performance.now() - begun));
    }
  };
  const writing = Promise.all([write(), write()]);
  await expect.poll(old, PATIENCE).toBe(0);
  purged = true;
  await writing;
  const sorted = took.toSorted((a, b) => a - b);
  const at = (share: number) => sorted[Math.floor(sorted.length * share)];
  console.log(`${took.length} writes beside the purge of ${PURGED} rows: p50 ${at(0.5)} ms, p99 ${at(0.99)} ms`);
  await checkInvariants(system, { accepted });
});

const UNSENDABLE = [
  ['no lineage', 'headers', 'no JSON'],
  ['a property that AMQP cannot hold', 'headers', JSON.stringify({ correlationId: '🚚'.repeat(100) })],
  ['a routing key that AMQP cannot hold', 'routing_key', '🚚'.repeat(100)],
] as const;

it('22: messages that can never be sent are parked at once with the reason; their keys do as they say, the others flow', async () => {
  const system = await newSystem();
  const pool = shopPool(system, 8);
  const accepted: string[] = [];
  const add = async (key: string, whenParked: string, column = 'headers', value = '{}') => {
    const id = uuidv7();
    await system.shop(
      `INSERT INTO outbox (id, aggregatetype, aggregateid, type, version, payload, when_parked, ${column}) VALUES (?, 'thing', ?, 'Made', 1, '{}', ?, ?)`,
      [id, key, whenParked, value],
    );
    return id;
  };
  const sent: Record<'hold' | 'continue', { bad: string[]; next: string[] }> = {
    hold: { bad: [], next: [] },
    continue: { bad: [], next: [] },
  };
  for (const [name, column, value] of UNSENDABLE) {
    for (const whenParked of ['hold', 'continue'] as const) {
      const key = `${name}, ${whenParked}`;
      sent[whenParked].bad.push(await add(key, whenParked, column, value));
      sent[whenParked].next.push(await add(key, whenParked));
      const some = Array.from({ length: 50 }, () => transaction(pool, createCustomer));
      accepted.push(...(await Promise.all(some)).map(({ id }) => id));
    }
  }
  await deliver(system);
  const found = async (condition: string) =>
    (await system.shop(`SELECT id FROM outbox WHERE ${condition} ORDER BY id`)).map((row) => String(row['id']));
  const parked = [...sent.hold.bad, ...sent.continue.bad].sort();
  await expect.poll(() => found("state = 'pending' AND held = 0"), PATIENCE).toEqual([]);
  expect(await found("state = 'parked' AND attempts = 1 AND last_error <> ''")).toEqual(parked);
  expect(await found("state = 'pending'")).toEqual(sent.hold.next);
  expect(await found("state = 'published' AND aggregatetype = 'thing'")).toEqual(sent.continue.next);

  // A person mends those that others wait for, and gives up the rest.
  await system.shop('DELETE FROM outbox WHERE id IN (?)', [sent.continue.bad]);
  await system.shop('UPDATE outbox SET headers = NULL, routing_key = NULL WHERE id IN (?)', [sent.hold.bad]);
  const relays = createPool(system.schemas.relayUrls.split(',')[0] ?? '', { connections: 1 });
  onTestFinished(() => relays.end());
  await retryNow(relays, sent.hold.bad);
  await checkInvariants(system, { accepted });
});
