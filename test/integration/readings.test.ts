import { createMetrics, keepReading, outboxSamples } from '@oncebox/metrics';
import { createPool, type Pool } from '@oncebox/mysql';
import { readOutbox } from '@oncebox/outbox';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, beforeEach, expect, inject, onTestFinished, test } from 'vitest';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

const PATIENCE = { timeout: 20_000, interval: 20 };

let schemas: TestSchemas;
let relayUrl: string;
/** The relay's own user. */
let relay: Pool;
let admin: Pool;
beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  relayUrl = schemas.relayUrls.split(',')[0] ?? '';
  relay = createPool(relayUrl, { connections: 1 });
  admin = createPool(schemas.shop.adminUrl, { connections: 2 });
});
afterAll(async () => {
  await Promise.all([relay.end(), admin.end()]);
  await schemas.drop();
});
beforeEach(() => admin.query('DELETE FROM outbox'));

interface Columns {
  readonly key?: string;
  readonly state?: 'pending' | 'parked' | 'published';
  readonly held?: 0 | 1;
}

/** @param ageSeconds by the database's clock */
async function add(count: number, type: string, ageSeconds: number, columns: Columns = {}): Promise<void> {
  const { key, state = 'pending', held = 0 } = columns;
  const publishedAt = state === 'published' ? '2020-01-01' : null;
  const rows = Array.from({ length: count }, () => [
    uuidv7(),
    'x',
    key ?? uuidv7(),
    type,
    '{}',
    state,
    held,
    publishedAt,
  ]);
  await admin.query(
    'INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, state, held, published_at) VALUES ?',
    [rows],
  );
  await admin.query('UPDATE outbox SET created_at = TIMESTAMPADD(SECOND, ?, UTC_TIMESTAMP(6)) WHERE id IN (?)', [
    -ageSeconds,
    rows.map(([id]) => id),
  ]);
}

test('an outbox is read by type and state, with the age of the oldest, for the relay and for the service', async () => {
  await add(2, 'A', 30);
  await add(1, 'A', 500);
  await add(1, 'B', 10);
  await add(1, 'B', 5, { held: 1 });
  await add(1, 'A', 700, { state: 'parked', held: 1 });
  await add(1, 'A', 5, { state: 'parked' });
  await add(1, 'A', 9_000, { state: 'published' });
  const reading = await readOutbox(relay, 1_600);
  const found = reading.messages.map(({ type, state, count, oldestSeconds }) => {
    return `${type} ${state} ${count} ${Math.floor(oldestSeconds / 5) * 5}`;
  });
  expect(found.sort()).toEqual(['A parked 1 700', 'A pending 3 500', 'A released 1 5', 'B held 1 5', 'B pending 1 10']);
  expect(reading.capped).toEqual([]);
  expect(reading.oldestPublishedSeconds).toBeGreaterThan(86_400);
  const service = createPool(schemas.shop.url, { connections: 1 });
  onTestFinished(() => service.end());
  expect((await readOutbox(service, 1_600)).messages).toHaveLength(5);
});

test('a count ends where it is told to, and keeps the oldest', async () => {
  await add(1, 'A', 900, { key: 'k' });
  await add(200, 'B', 1, { key: 'k' });
  const { messages, capped } = await readOutbox(relay, 160); // ten in each partition
  expect(messages).toMatchObject([
    { type: 'A', count: 1 },
    { type: 'B', count: 9 },
  ]);
  expect(messages[0]?.oldestSeconds).toBeGreaterThanOrEqual(900);
  expect(capped).toEqual(['pending']);
});

test('of two processes one reads; the other takes over when its session ends, and the first shows nothing then', async () => {
  await add(3, 'A', 10);
  const schema = schemas.shop.name;
  const processes = [0, 1].map(() => {
    const metrics = createMetrics();
    const reading = keepReading(metrics, {
      databaseUrl: relayUrl,
      of: 'outbox',
      logger: { warn: () => undefined },
      everyMs: 50,
      read: async (db) => outboxSamples(schema, await readOutbox(db, 1_600), new Set()),
    });
    onTestFinished(() => reading.stop());
    return metrics;
  });
  const shows = async () => {
    const pages = await Promise.all(processes.map((metrics) => metrics.render({})));
    return pages.map(
      (page) => page.includes('oncebox_outbox_messages{') && page.includes('oncebox_reading_age_seconds{'),
    );
  };
  await expect.poll(async () => (await shows()).filter(Boolean), PATIENCE).toHaveLength(1);
  const first = await shows();
  // By the server, as it ends that of a process which is frozen. The second to connect may be the one that reads.
  await expect
    .poll(async () => {
      const [sessions] = await admin.query<RowDataPacket[]>(
        "SELECT id AS id FROM information_schema.PROCESSLIST WHERE db = ? AND user LIKE 'relay%' AND command = 'Sleep'",
        [schema],
      );
      for (const { id } of sessions) await admin.query('KILL ?', [id]).catch(() => undefined); // it has ended
      return await shows();
    }, PATIENCE)
    .toEqual(first.map((it) => !it));
});
