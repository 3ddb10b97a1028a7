import { createInbox, defineConsumer, on } from '@oncebox/inbox';
import { createPool, type Pool } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, expect, inject, onTestFinished, test } from 'vitest';
import { channel, consume, newName, PATIENCE, send, vhost } from '../support/consumers.ts';
import { Stepped, sendStep } from '../support/ordered.ts';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';
import { Ticked } from '../support/ticks.ts';

/**
 * A server that says of itself that it cannot go on, to one statement and not to the probe: its
 * disk has room for the probe's row and not for the handler's. Or the one table that a handler
 * fills is full, and no other message has anything to do with it.
 */

let schemas: TestSchemas;
let admin: Pool;
let pool: Pool;
beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  admin = createPool(schemas.fulfilment.adminUrl, { connections: 5 });
  pool = createPool(schemas.fulfilment.adminUrl, { connections: 10 });
  await admin.query('CREATE TABLE effects (name VARCHAR(100) NOT NULL) ENGINE = InnoDB');
  await admin.query(
    'CREATE TABLE trouble (name VARCHAR(100) NOT NULL PRIMARY KEY, errno INT NOT NULL) ENGINE = InnoDB',
  );
  await admin.query(`CREATE TRIGGER refuses BEFORE INSERT ON effects FOR EACH ROW BEGIN
      DECLARE number INT DEFAULT (SELECT MAX(errno) FROM trouble WHERE trouble.name = NEW.name);
      IF number IS NOT NULL THEN SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = number, MESSAGE_TEXT = 'trouble'; END IF; END`);
});
afterAll(async () => {
  await Promise.all([admin.end(), pool.end()]);
  await schemas.drop();
});

const NUMBERS = [1021, 1030, 1037, 1041, 1047, 1114, 1135, 1180, 1181, 1226, 1290, 1461, 1836, 3100, 3101];

async function effects(): Promise<Set<string>> {
  const [rows] = await admin.query<RowDataPacket[]>('SELECT name FROM effects');
  return new Set(rows.map((row) => String(row['name'])));
}
const letters = async () => (await admin.query<RowDataPacket[]>('SELECT reason FROM dead_letters'))[0];

test.each([
  [1, [50]],
  [100, [50]],
  [1, []],
])(
  'C1: a server that cannot go on costs no attempt, and stops no other message (batches of %i, delays %j)',
  async (batch, retryDelaysMs) => {
    const name = newName();
    const calls = new Map<string, number>();
    const handler = on(Ticked(name), {
      async handle(tx, { id }) {
        calls.set(id, (calls.get(id) ?? 0) + 1);
        await tx.execute('INSERT INTO effects (name) VALUES (?)', [id]);
      },
    });
    const inbox = createInbox(pool, defineConsumer({ name, handlers: [handler], retryDelaysMs, batch }));
    // Before they are sent: what is sent first must find its trouble.
    const ids = NUMBERS.map((errno) => ({ id: `${name}-${errno}`, errno }));
    for (const { id, errno } of ids) await admin.query('INSERT INTO trouble VALUES (?, ?)', [id, errno]);
    const consumer = await consume(name, inbox.process, { ...inbox, prefetch: 100 });
    for (const { id } of ids) send(name, { type: 'Ticked', messageId: id });
    const others = Array.from({ length: 100 }, () => send(name, { type: 'Ticked' }));
    await expect.poll(async () => (await effects()).isSupersetOf(new Set(others)), PATIENCE).toBe(true);
    // More often than the attempts of a message whose failures count.
    await expect
      .poll(() => Math.min(...ids.map(({ id }) => calls.get(id) ?? 0)), { ...PATIENCE, timeout: 90_000 })
      .toBeGreaterThan(retryDelaysMs.length === 0 ? 1 : 13); // one without delays waits for 30 s
    const more = Array.from({ length: 100 }, () => send(name, { type: 'Ticked' }));
    await expect.poll(async () => (await effects()).isSupersetOf(new Set(more)), PATIENCE).toBe(true);
    expect(await letters()).toEqual([]);
    expect(await vhost.depth(`${name}.dead`)).toBe(0);
    await admin.query('DELETE FROM trouble');
    await expect
      .poll(async () => (await effects()).isSupersetOf(new Set(ids.map(({ id }) => id))), PATIENCE)
      .toBe(true);
    await consumer.stop();
    expect(await vhost.depth(`${name}.dead`)).toBe(0);
  },
  180_000,
);

test.each([[[1_000]], [[]]])(
  'C1: more messages that wait for a full table than a consumer may have in hand stop no other (delays %j)',
  async (retryDelaysMs) => {
    const name = newName();
    const handler = on(Ticked(name), {
      async handle(tx, { id }) {
        await tx.execute('INSERT INTO effects (name) VALUES (?)', [id]);
      },
    });
    const inbox = createInbox(pool, defineConsumer({ name, handlers: [handler], retryDelaysMs }));
    const stuck = Array.from({ length: 60 }, (_, n) => `${name}-${n}`);
    for (const id of stuck) await admin.query('INSERT INTO trouble VALUES (?, 1114)', [id]);
    const consumer = await consume(name, inbox.process, { ...inbox, prefetch: 20 });
    for (const id of stuck) send(name, { type: 'Ticked', messageId: id });
    const others = Array.from({ length: 50 }, () => send(name, { type: 'Ticked' }));
    // In hand each of them stayed for seconds.
    const inTime = { ...PATIENCE, timeout: 15_000 };
    await expect.poll(async () => (await effects()).isSupersetOf(new Set(others)), inTime).toBe(true);
    await admin.query('DELETE FROM trouble');
    const late = { ...PATIENCE, timeout: 60_000 };
    await expect.poll(async () => (await effects()).isSupersetOf(new Set(stuck)), late).toBe(true);
    await consumer.stop();
    expect(await letters()).toEqual([]);
  },
  120_000,
);

// MySQL refuses such a table within a transaction, where it logs by GTID.
test.skipIf(inject('servers').kind === 'mysql')(
  'C1: a table in memory that is full keeps its own messages waiting, and no other',
  async () => {
    const name = newName();
    await admin.query('CREATE TABLE tiny (filler CHAR(250) NOT NULL) ENGINE = MEMORY MAX_ROWS = 10');
    onTestFinished(async () => void (await admin.query('DROP TABLE tiny')));
    const fill = () => admin.query("INSERT INTO tiny SELECT REPEAT('x', 250) FROM information_schema.COLUMNS");
    await admin.query('SET SESSION max_heap_table_size = 16384');
    await expect(fill()).rejects.toMatchObject({ errno: 1114 });
    const tries = new Map<string, number>();
    const handler = on(Ticked(name), {
      async handle(tx, { id }) {
        if (id.startsWith('tiny')) {
          tries.set(id, (tries.get(id) ?? 0) + 1);
          await tx.execute("INSERT INTO tiny SELECT REPEAT('y', 250) FROM information_schema.COLUMNS LIMIT 500");
        } else await tx.execute('INSERT INTO effects (name) VALUES (?)', [id]);
      },
    });
    const inbox = createInbox(pool, defineConsumer({ name, handlers: [handler], retryDelaysMs: [50] }));
    const consumer = await consume(name, inbox.process, { ...inbox, prefetch: 100 });
    const stuck = Array.from({ length: 10 }, (_, n) => `tiny-${n}`);
    for (const id of stuck) send(name, { type: 'Ticked', messageId: id });
    const others = Array.from({ length: 100 }, () => send(name, { type: 'Ticked' }));
    await expect.poll(async () => (await effects()).isSupersetOf(new Set(others)), PATIENCE).toBe(true);
    await expect
      .poll(() => Math.min(...stuck.map((id) => tries.get(id) ?? 0)), { ...PATIENCE, timeout: 90_000 })
      .toBeGreaterThan(13);
    await consumer.stop();
    expect(await letters()).toEqual([]);
    expect(await vhost.depth(`${name}.dead`)).toBe(0);
  },
  180_000,
);

test('C1: an ordered consumer holds such a message without counting, and its key with it; other keys go on', async () => {
  const tries = new Map<string, number>();
  const handler = on(Stepped, {
    async handle(tx, { payload: { walk, n } }) {
      tries.set(walk, (tries.get(walk) ?? 0) + 1);
      await tx.execute('INSERT INTO effects (name) VALUES (?)', [`${walk}${n === 1 ? '' : `-${n}`}`]);
    },
  });
  const name = newName();
  // A failure that counted would be a dead letter at once.
  const inbox = createInbox(pool, defineConsumer({ name, handlers: [handler], retryDelaysMs: [], ordered: true }));
  const walks = NUMBERS.slice(0, 6).map((errno) => ({ walk: `${name.slice(-12)}-${errno}`, errno }));
  for (const { walk, errno } of walks) await admin.query('INSERT INTO trouble VALUES (?, ?)', [walk, errno]);
  const consumer = await consume(name, inbox.process, { ...inbox, routingKeys: [Stepped.routingKey] });
  for (const { walk } of walks) for (const n of [1, 2]) sendStep(channel, walk, n);
  const free = Array.from({ length: 20 }, (_, n) => `free-${n}`);
  for (const walk of free) sendStep(channel, walk, 1);
  await expect
    .poll(async () => (await effects()).isSupersetOf(new Set(free)), { ...PATIENCE, timeout: 60_000 })
    .toBe(true);
  const makeDue = () => admin.query('UPDATE held_keys SET due_at = UTC_TIMESTAMP(6)');
  await expect
    .poll(
      async () => {
        await makeDue();
        return Math.min(...walks.map(({ walk }) => tries.get(walk) ?? 0));
      },
      { ...PATIENCE, timeout: 60_000, interval: 200 },
    )
    .toBeGreaterThan(5);
  expect(await letters()).toEqual([]);
  await admin.query('DELETE FROM trouble');
  const all = walks.flatMap(({ walk }) => [walk, `${walk}-2`]);
  await expect
    .poll(
      async () => {
        await makeDue();
        return (await effects()).isSupersetOf(new Set(all));
      },
      { ...PATIENCE, timeout: 60_000 },
    )
    .toBe(true);
  await consumer.stop();
  expect(await letters()).toEqual([]);
  expect(await vhost.depth(`${name}.dead`)).toBe(0);
}, 240_000);
