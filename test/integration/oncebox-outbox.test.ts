import { tmpdir } from 'node:os';
import { defineMessage } from '@oncebox/message';
import { createPool, type Pool, transaction } from '@oncebox/mysql';
import { createRelay, outbox, type Relay, release, retryNow } from '@oncebox/outbox';
import { createPublisher } from '@oncebox/rabbitmq';
import type { Channel } from 'amqplib';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it, vi } from 'vitest';
import { z } from 'zod';
import { type Ended, startOncebox } from '../support/oncebox.ts';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';
import { createVhost, type Vhost } from '../support/vhost.ts';

const Step = defineMessage({
  type: 'Step',
  version: 1,
  aggregateType: 'walk',
  aggregateId: ({ walk }) => walk,
  routingKey: 'walk.step',
  payload: z.strictObject({ walk: z.string(), step: z.int() }),
});
const Unheard = defineMessage({ ...Step, payload: Step.schema, type: 'Unheard', routingKey: 'walk.unheard' });

const QUEUE = 'seen';
const PATIENCE = { timeout: 30_000, interval: 20 };
const quiet = { info() {}, warn() {}, error() {} };

let schemas: TestSchemas;
let vhost: Vhost;
let pool: Pool;
let admin: Pool;
let relayPool: Pool;
let publisher: ReturnType<typeof createPublisher>;
let channel: Channel;
let seen: string[];
let relay: Relay;

beforeAll(async () => {
  [schemas, vhost] = await Promise.all([createSchemas(inject('servers')), createVhost(inject('servers'))]);
  const [relayUrl = ''] = schemas.relayUrls.split(',');
  pool = createPool(schemas.shop.url, { connections: 4 });
  admin = createPool(schemas.shop.adminUrl, { connections: 2 });
  relayPool = createPool(relayUrl, { connections: 2 });
  publisher = createPublisher({ urls: [vhost.amqpUrl], name: 'relay under test', logger: quiet });
  await vi.waitFor(() => expect(publisher.ready).toBe(true), PATIENCE);
});

beforeEach(async () => {
  await admin.query('DELETE FROM outbox');
  await admin.query('DELETE FROM outbox_waiting');
  channel = await vhost.channel();
  await channel.assertQueue(QUEUE, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
  await channel.bindQueue(QUEUE, 'oncebox.events', 'walk.step');
  const steps: string[] = [];
  seen = steps;
  await channel.consume(
    QUEUE,
    (message) => {
      const { walk, step } = JSON.parse(message?.content.toString() ?? '{}');
      steps.push(`${walk}${step}`);
    },
    { noAck: true },
  );
  relay = createRelay({
    databaseUrls: schemas.relayUrls.split(',').slice(0, 1),
    publisher,
    logger: quiet,
    backoff: { firstMs: 600_000, mostMs: 600_000 },
  });
});

afterEach(async () => {
  await relay.stop();
  await channel.deleteQueue(QUEUE);
  await channel.close();
});

afterAll(async () => {
  await publisher.close();
  await Promise.all([pool.end(), admin.end(), relayPool.end()]);
  await Promise.all([schemas.drop(), vhost.drop()]);
});

const oncebox = (...args: string[]): Promise<Ended> =>
  startOncebox(['outbox', ...args], { RELAY_DATABASE_URLS: schemas.relayUrls }, tmpdir()).ended;

const drain = async (): Promise<void> => {
  while ((await relay.runOnce()).length > 0);
};

async function add(...messages: Parameters<typeof outbox.add>[1][]): Promise<void> {
  await transaction(pool, async (tx) => {
    for (const message of messages) await outbox.add(tx, message);
  });
}

const walk = (name: string, ...steps: number[]) => steps.map((step) => Step.message({ walk: name, step }));

const spoil = (id: string | undefined) => admin.query("UPDATE outbox SET headers = 'no JSON' WHERE id = ?", [id]);
const mend = (...ids: (string | undefined)[]) => admin.query('UPDATE outbox SET headers = NULL WHERE id IN (?)', [ids]);

async function states(): Promise<string[]> {
  const [rows] = await admin.query<RowDataPacket[]>('SELECT * FROM outbox ORDER BY seq');
  return rows.map(({ aggregateid, payload, state, held }) => {
    return `${aggregateid}${JSON.parse(payload).step} ${state}${held === 1 ? ' held' : ''}`;
  });
}

/** A key whose first message is parked, the others behind it. */
async function parked(name: string, ...steps: number[]): Promise<string[]> {
  const messages = walk(name, ...steps);
  await add(...messages);
  await spoil(messages[0]?.id);
  await drain();
  expect(await states()).toContain(`${name}${steps[0]} parked held`);
  return messages.map(({ id }) => id);
}

describe('oncebox outbox', () => {
  it('lists what is not published, by state, type, reason and age', async () => {
    const [head, behind] = await parked('a', 1, 2);
    const unheard = Unheard.message({ walk: 'b', step: 1 });
    await add(unheard, ...walk('c', 1));
    await drain();
    await add(...walk('d', 1));
    await admin.query("UPDATE outbox SET created_at = created_at - INTERVAL 2 HOUR WHERE aggregateid = 'b'");

    const all = JSON.parse((await oncebox('list', '--json')).stdout);
    expect(all.map((row: { aggregateId: string; state: string }) => `${row.aggregateId} ${row.state}`)).toEqual([
      'a parked',
      'a held',
      'b held',
      'd pending',
    ]);
    expect(all[0]).toMatchObject({ schema: schemas.shop.name, id: head, attempts: 1, type: 'Step' });
    expect(all[0].lastError).toContain('ONCEBOX_INVALID_HEADERS');
    const listed = async (...filter: string[]) =>
      JSON.parse((await oncebox('list', '--json', ...filter)).stdout).map((row: { id: string }) => row.id);
    expect(await listed('--state', 'held', '--type', 'Step')).toEqual([behind]);
    expect(await listed('--reason', 'returned')).toEqual([unheard.id]);
    expect(await listed('--older-than', '1h')).toEqual([unheard.id]);
    expect(await listed('--newer-than', '1h', '--limit', '2')).toEqual([head, behind]);

    const forPeople = await oncebox('list', '--limit', '1');
    expect(forPeople).toMatchObject({ code: 0, stderr: '' });
    expect(forPeople.stdout).toMatch(/^SCHEMA +ID +TYPE +KEY +STATE/);
    expect(forPeople.stdout).toContain('There are more');
  });

  it('shows one message, what it waits for, and what it says only when asked', async () => {
    const [head = '', behind = ''] = await parked('a', 1, 2);
    const shown = JSON.parse((await oncebox('show', behind, '--json')).stdout);
    expect(shown).toMatchObject({ id: behind, state: 'held', behind: head, dueAt: null, routingKey: 'walk.step' });
    expect(shown).not.toHaveProperty('payload');
    expect((await oncebox('show', head)).stdout).not.toContain('"walk"');
    expect((await oncebox('show', head, '--payload')).stdout).toContain('{"walk":"a","step":1}');
    expect(await oncebox('show', uuidv7())).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('is in none of'),
    });
  });

  it('retries a parked message as the head of its key, and the rest follows in order', async () => {
    const [head = '', behind = ''] = await parked('a', 1, 2, 3);
    const early = await oncebox('retry', behind);
    expect(early).toMatchObject({ code: 0, stdout: expect.stringContaining('after the earlier messages of its key') });
    await drain();
    expect(seen).toEqual([]);

    await mend(head);
    expect(await oncebox('retry', head)).toMatchObject({ code: 0, stdout: expect.stringContaining('tried again now') });
    expect(await states()).toEqual(['a1 pending held', 'a2 pending held', 'a3 pending held']);
    const [[row]] = await admin.query<RowDataPacket[]>('SELECT attempts FROM outbox WHERE id = ?', [head]);
    expect(row).toEqual({ attempts: 0 });
    await drain();
    await vi.waitFor(() => expect(seen).toEqual(['a1', 'a2', 'a3']), PATIENCE);
    expect(await states()).toEqual(['a1 published', 'a2 published', 'a3 published']);
  });

  it('does not wait for the backoff of a message that it retries', async () => {
    const unheard = Unheard.message({ walk: 'a', step: 1 });
    await add(unheard, ...walk('a', 2));
    await drain();
    await channel.bindQueue(QUEUE, 'oncebox.events', 'walk.unheard');
    await drain();
    expect(seen).toEqual([]);
    expect((await oncebox('retry', '--reason', 'returned')).code).toBe(0);
    await drain();
    await vi.waitFor(() => expect(seen).toEqual(['a1', 'a2']), PATIENCE);
    await channel.unbindQueue(QUEUE, 'oncebox.events', 'walk.unheard');
  });

  it('retries what filters choose, shows it first with --dry-run, and stops at --limit', async () => {
    const keys = ['a', 'b', 'c'];
    const heads: (string | undefined)[] = [];
    for (const key of keys) heads.push((await parked(key, 1, 2))[0]);
    await mend(...heads);
    const before = await states();
    const dry = await oncebox('retry', '--state', 'parked', '--dry-run', '--json');
    expect(JSON.parse(dry.stdout)).toEqual({
      messages: heads.map((id) => ({ schema: schemas.shop.name, id, outcome: 'would retry' })),
      counts: { 'would retry': 3 },
    });
    expect(await states()).toEqual(before);

    const two = await oncebox('retry', '--state', 'parked', '--limit', '2', '--json');
    expect(JSON.parse(two.stdout).counts).toEqual({ due: 2 });
    await drain();
    await vi.waitFor(() => expect(seen.sort()).toEqual(['a1', 'a2', 'b1', 'b2']), PATIENCE);
    expect((await oncebox('retry', '--all', '--type', 'Step')).code).toBe(0);
    await drain();
    await vi.waitFor(() => expect(seen.sort()).toEqual(['a1', 'a2', 'b1', 'b2', 'c1', 'c2']), PATIENCE);
  });

  it('releases a parked message: its key goes on in order, and it stays parked', async () => {
    const [head = ''] = await parked('a', 1, 2, 3);
    expect(await oncebox('release', head)).toMatchObject({ code: 0, stdout: expect.stringContaining('goes on') });
    await drain();
    await vi.waitFor(() => expect(seen).toEqual(['a2', 'a3']), PATIENCE);
    expect(await states()).toEqual(['a1 parked', 'a2 published', 'a3 published']);
    expect((await oncebox('release', head)).code).toBe(1);

    await mend(head);
    const refused = await oncebox('retry', head);
    expect(refused).toMatchObject({ code: 1, stdout: expect.stringContaining('out of order') });
    await drain();
    expect(seen).toEqual(['a2', 'a3']);
    expect((await oncebox('retry', head, '--force')).code).toBe(0);
    await drain();
    await vi.waitFor(() => expect(seen).toEqual(['a2', 'a3', 'a1']), PATIENCE);
  });

  it('releases the next head of a key when that one is parked too', async () => {
    const [first = '', second = ''] = await parked('a', 1, 2, 3);
    await spoil(second);
    expect(await release(relayPool, first)).toBe('released');
    await drain();
    expect(await states()).toEqual(['a1 parked', 'a2 parked held', 'a3 pending held']);
    expect(await release(relayPool, second)).toBe('released');
    await drain();
    await vi.waitFor(() => expect(seen).toEqual(['a3']), PATIENCE);
  });

  it('keeps every key in order while relays publish, writers write, and messages are retried and released', async () => {
    const names = Array.from({ length: 8 }, (_, index) => `w${index}-`);
    const heads = new Map<string, string>();
    for (const name of names) heads.set(name, (await parked(name, 1, 2))[0] ?? '');
    relay.start();
    for (let step = 3; step <= 30; step++) {
      await add(...names.flatMap((name) => walk(name, step)));
      // In vain, as they are not mended: each is parked again, and nothing may overtake it meanwhile.
      await retryNow(relayPool, [...heads.values()]);
    }
    const [mended, released] = [names.slice(0, 4), names.slice(4)];
    const idsOf = (some: readonly string[]) => some.map((name) => heads.get(name) ?? '');
    await mend(...idsOf(mended));
    await retryNow(relayPool, idsOf(mended));
    for (const id of idsOf(released)) {
      await vi.waitFor(async () => expect(await release(relayPool, id)).toBe('released'), PATIENCE);
    }
    await vi.waitFor(() => expect(new Set(seen).size).toBe(8 * 30 - released.length), PATIENCE);
    for (const name of names) {
      const first = mended.includes(name) ? 1 : 2;
      const expected = Array.from({ length: 31 - first }, (_, index) => `${name}${index + first}`);
      expect([...new Set(seen)].filter((each) => each.startsWith(name))).toEqual(expected);
    }
  });

  it('waits for the relay that holds the partition, and changes nothing meanwhile', async () => {
    const [head = ''] = await parked('a', 1);
    const holder = await relayPool.getConnection();
    await holder.beginTransaction();
    await holder.query('SELECT partition_id FROM outbox_partition FOR UPDATE');
    const running = oncebox('release', head);
    await vi.waitFor(async () => {
      const [sessions] = await admin.query<RowDataPacket[]>('SHOW FULL PROCESSLIST');
      const waiting = sessions.filter(
        ({ Info, db }) => db === schemas.shop.name && /outbox_partition.*UPDATE/.test(Info),
      );
      expect(waiting).toHaveLength(1);
    }, PATIENCE);
    expect(await states()).toEqual(['a1 parked held']);
    await holder.commit();
    holder.release();
    expect((await running).code).toBe(0);
    expect(await states()).toEqual(['a1 parked']);
  });

  it.each([
    ['no action', [], 'list, show, retry, release or republish?'],
    ['an unknown one', ['undo'], '"outbox undo"'],
    ['a retry of nothing in particular', ['retry'], 'Give ids, or filters, or --all'],
    ['ids and filters', ['retry', 'x', '--all'], 'not both'],
  ])('says what is wrong with %s', async (_case, args, message) => {
    const ended = await oncebox(...args);
    expect(ended).toMatchObject({ code: 2, stdout: '' });
    expect(ended.stderr.split('\n')[0]).toContain(message);
  });
});
