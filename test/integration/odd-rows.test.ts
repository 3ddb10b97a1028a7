import { createPool, type Pool } from '@oncebox/mysql';
import { findInOutbox, listOutbox, readBacklog, readOutbox, scanOutbox } from '@oncebox/outbox';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { deleteExpired } from '../../packages/outbox/src/retention.ts';
import { admin, drain, newRelay, Step, schemas, seen, steps, useRelays } from '../support/walks.ts';

useRelays();

/** A writer of plain SQL under a mode that accepts everything. */
let writer: Pool;
/** The relay's own user. */
let relays: Pool;
beforeAll(async () => {
  writer = createPool(schemas.shop.adminUrl, { connections: 1 });
  await writer.query("SET SESSION sql_mode = ''");
  relays = createPool(schemas.relayUrls.split(',')[0] ?? '', { connections: 1 });
});
afterAll(async () => {
  await Promise.all([writer.end(), relays.end()]);
});

const DEEP = `{"correlationId":${'['.repeat(10_000)}${']'.repeat(10_000)}}`;

/** What a row may hold in its columns, and what becomes of it. */
const ROWS: [what: string, columns: Record<string, string | number>, becomes: 'parked' | 'published'][] = [
  ['no time', { created_at: '0000-00-00' }, 'parked'],
  ['a time without a month', { created_at: '2026-00-10' }, 'parked'],
  ['a time before AMQP counts', { created_at: '1960-01-01' }, 'parked'],
  ['the first time there is', { created_at: '0001-01-01' }, 'published'],
  ['the last time there is', { created_at: '9999-12-31 23:59:59.999999' }, 'published'],
  ['no time to send it at', { available_at: '0000-00-00' }, 'published'],
  ['more attempts than can be counted', { attempts: 4_294_967_295 }, 'published'],
  ['no headers that are JSON', { headers: 'no JSON' }, 'parked'],
  ['headers nested deeply', { headers: DEEP }, 'parked'],
  ['large headers', { headers: JSON.stringify({ traceparent: 'x'.repeat(60_000) }) }, 'parked'],
  ['an exchange that is too long', { exchange: '🚚'.repeat(127) }, 'parked'],
  ['a routing key that is too long', { routing_key: '🚚'.repeat(255) }, 'parked'],
  ['a type that is too long', { type: '🚚'.repeat(128) }, 'parked'],
  ['no type', { type: '' }, 'published'],
  ['no key', { aggregateid: '' }, 'published'],
  ['an id that is no UUID', { id: "o'brien" }, 'published'],
  ['no id', { id: '' }, 'published'],
  ['version 0', { version: 0 }, 'published'],
  ['no payload', { payload: '' }, 'published'],
  ['a payload that is no JSON', { payload: 'no JSON' }, 'published'],
];

async function insertOdd(columns: Record<string, string | number>): Promise<string> {
  const row: Record<string, string | number> = {
    id: uuidv7(),
    aggregatetype: 'walk',
    aggregateid: 'odd',
    type: 'Step',
    payload: '{"walk":"odd","step":1}',
    routing_key: 'walk.step',
    ...columns,
  };
  await writer.query('INSERT INTO outbox (??) VALUES (?)', [Object.keys(row), Object.values(row)]);
  return String(row['id']);
}

async function insertGood(walk: string, step: number): Promise<void> {
  const message = Step.message({ walk, step });
  await writer.query(
    "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, routing_key) VALUES (?, 'walk', ?, 'Step', ?, 'walk.step')",
    [message.id, walk, JSON.stringify({ walk, step })],
  );
}

async function readOdd(id: string): Promise<RowDataPacket> {
  const [[row]] = await admin.query<RowDataPacket[]>(
    'SELECT state, held, attempts, last_error, CHAR_LENGTH(last_error) AS length FROM outbox WHERE id = ?',
    [id],
  );
  return row ?? expect.fail('the row is gone');
}

/** What the command and the metrics ask. */
async function readAll(id: string): Promise<void> {
  expect(await findInOutbox(relays, id)).toMatchObject({ id, createdAt: expect.any(String) });
  const states = ['pending', 'held', 'parked', 'released', 'published'] as const;
  const listed = await listOutbox(relays, { states }, { after: '0', limit: 10 });
  expect(listed.map((entry) => entry.id)).toContain(id);
  const scanned: string[] = [];
  for await (const page of scanOutbox(relays, { since: undefined, settledFor: 10 })) {
    scanned.push(...page.map((entry) => entry.id));
  }
  expect(scanned).toContain(id);
  await readBacklog(relays, 100);
  await readOutbox(relays, 100);
}

describe('a row that has', () => {
  it.each(ROWS)('B3: %s costs itself alone', async (_what, columns, becomes) => {
    await insertGood('a', 1);
    const id = await insertOdd(columns);
    await insertGood('a', 2);
    await insertGood('b', 1);
    await readAll(id);
    await drain(newRelay());
    const others = () => seen.filter(({ content }) => /"walk":"[ab]"/.test(content.toString()));
    await vi.waitFor(() => expect(others()).toHaveLength(3));
    await drain(newRelay());
    expect(others()).toHaveLength(3);
    const row = await readOdd(id);
    expect(row).toMatchObject({ state: becomes, held: becomes === 'parked' ? 1 : 0 });
    if (becomes === 'parked') expect(row['last_error']).toMatch(/\w/);
    await readAll(id);
  });

  it('B3: more attempts than can be counted is postponed as any other', async () => {
    const id = await insertOdd({ attempts: 4_294_967_295, routing_key: 'walk.unheard' });
    await insertGood('a', 1);
    await drain(newRelay());
    await vi.waitFor(() => expect(steps()).toEqual(['a1']));
    expect(await readOdd(id)).toMatchObject({ state: 'pending', held: 1, attempts: 4_294_967_295 });
  });

  it('B3: no time is parked although the mode of the session refuses such a time', async () => {
    const id = await insertOdd({ created_at: '0000-00-00', available_at: '0000-00-00', when_parked: 'continue' });
    await drain(newRelay());
    expect(await readOdd(id)).toMatchObject({ state: 'parked', held: 0 });
  });
});

it('B3: a reason fits its column in characters, and none of them is cut', async () => {
  const id = await insertOdd({});
  const publisher = {
    ready: true,
    publish: async () => ({ kind: 'unsendable', reason: `x${'🚚'.repeat(600)}\ud800` }) as const,
  };
  await drain(newRelay({ publisher }));
  expect(await readOdd(id)).toMatchObject({ state: 'parked', last_error: `x${'🚚'.repeat(499)}`, length: 500 });
});

it('B3: a publisher that throws for one message costs that message alone', async () => {
  const odd = await insertOdd({ payload: '{"secret":"Ada"}' });
  await insertGood('a', 1);
  const sent: string[] = [];
  const publisher = {
    ready: true,
    publish: async ({ id }: { id: string }) => {
      if (id === odd) throw new TypeError('cannot send {"secret":"Ada"}');
      sent.push(id);
      return { kind: 'confirmed' } as const;
    },
  };
  await drain(newRelay({ publisher }));
  expect(sent).toHaveLength(1);
  const row = await readOdd(odd);
  expect(row).toMatchObject({ state: 'pending', held: 1, last_error: expect.stringContaining('TypeError') });
  expect(row['last_error']).not.toContain('Ada');
});

it('B3: the age of a backlog is that of its oldest row whose time is known', async () => {
  await insertOdd({ created_at: '0000-00-00' });
  await insertOdd({ aggregateid: 'odd', created_at: '2026-00-10' });
  await insertOdd({ aggregateid: 'other', created_at: '2026-01-01' });
  const { messages } = await readOutbox(relays, 100);
  const ages = [(await readBacklog(relays, 100)).oldestSeconds, ...messages.map(({ oldestSeconds }) => oldestSeconds)];
  const decade = 10 * 365 * 86_400;
  expect(ages).toEqual(ages.map(() => expect.toSatisfy((age) => age > 1_000 && age < decade)));
});

describe('retention', () => {
  const published = (columns: Record<string, string | number>): Promise<string> =>
    insertOdd({ state: 'published', created_at: '2026-01-01', published_at: '2026-01-02', ...columns });
  const clean = async (): Promise<void> => {
    const [[row]] = await admin.query<RowDataPacket[]>('SELECT partition_id AS id FROM outbox LIMIT 1');
    while (await deleteExpired(relays, Number(row?.['id']), 1));
  };

  it.each([
    ['no time', { created_at: '0000-00-00' }, "'2026-01-02'"],
    ['a time without a month', { created_at: '2026-00-10' }, "'2026-01-02'"],
    ['the last time there is', { created_at: '9999-12-31 23:59:59.999999' }, 'UTC_TIMESTAMP(6)'],
    ['the first year', { created_at: '0001-01-01' }, "'2026-01-02'"],
    ['no time of its publishing', { published_at: '0000-00-00' }, "'2026-01-02'"],
  ])('deletes a row that has %s, and those beside it, and forgets no more than that', async (_what, columns, most) => {
    await published({});
    await published(columns);
    await published({});
    await clean();
    expect((await admin.query('SELECT id FROM outbox'))[0]).toEqual([]);
    const [[row]] = await admin.query<RowDataPacket[]>(
      `SELECT MAX(forgotten_before) BETWEEN '2026-01-01' AND ${most} AS sane FROM outbox_partition`,
    );
    expect(row?.['sane']).toBe(1);
  });

  it('B3: is not held up by rows that must stay', async () => {
    await published({ published_at: '9999-12-31' });
    for (let n = 0; n < 3; n++) await published({});
    await admin.query(
      `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, state, created_at, published_at)
       SELECT UUID(), 'walk', 'odd', 'Step', '{}', 'published', '2026-01-01', '2026-01-02'
         FROM outbox AS a, outbox AS b, outbox AS c, outbox AS d, outbox AS e`,
    );
    await clean();
    expect((await admin.query('SELECT id FROM outbox'))[0]).toHaveLength(1);
  });
});
