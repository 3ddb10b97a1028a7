import { CustomerCreated } from '@oncebox/contracts';
import { defineMessage } from '@oncebox/message';
import { createPool, type Pool, transaction } from '@oncebox/mysql';
import { createRelay, type Outcome, outbox, type Publisher, type Relay } from '@oncebox/outbox';
import { createPublisher } from '@oncebox/rabbitmq';
import type { Channel, ConsumeMessage } from 'amqplib';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it, vi } from 'vitest';
import { z } from 'zod';
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
const Whisper = defineMessage({ ...Unheard, payload: Step.schema, type: 'Whisper', delivery: 'optional' });

const QUEUE = 'seen';
const quiet = { info() {}, warn() {}, error() {} };

let schemas: TestSchemas;
let vhost: Vhost;
let pool: Pool;
let admin: Pool;
let publisher: ReturnType<typeof createPublisher>;
let channel: Channel;
let seen: ConsumeMessage[];
let stopReading: () => Promise<unknown>;
const relays: Relay[] = [];

beforeAll(async () => {
  [schemas, vhost] = await Promise.all([createSchemas(inject('servers')), createVhost(inject('servers'))]);
  pool = createPool(schemas.shop.url, { connections: 4 });
  admin = createPool(schemas.shop.adminUrl, { connections: 2 });
  publisher = createPublisher({ urls: [vhost.amqpUrl], name: 'relay under test', logger: quiet });
  await vi.waitFor(() => expect(publisher.ready).toBe(true), { timeout: 20_000 });
});

beforeEach(async () => {
  await admin.query('DELETE FROM outbox');
  await admin.query('DELETE FROM outbox_waiting');
  channel = await vhost.channel();
  await channel.assertQueue(QUEUE, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
  await channel.bindQueue(QUEUE, 'oncebox.events', 'walk.step');
  const messages: ConsumeMessage[] = [];
  seen = messages;
  const { consumerTag } = await channel.consume(QUEUE, (message) => void (message && messages.push(message)), {
    noAck: true,
  });
  stopReading = () => channel.cancel(consumerTag);
});

afterEach(async () => {
  await Promise.all(relays.splice(0).map((relay) => relay.stop()));
  await stopReading();
  await channel.deleteQueue(QUEUE);
  await channel.close();
});

afterAll(async () => {
  await publisher.close();
  await Promise.all([pool.end(), admin.end()]);
  await Promise.all([schemas.drop(), vhost.drop()]);
});

const newRelay = (settings: Partial<Parameters<typeof createRelay>[0]> = {}): Relay => {
  const relay = createRelay({
    databaseUrls: schemas.relayUrls.split(',').slice(0, 1),
    publisher,
    logger: quiet,
    ...settings,
  });
  relays.push(relay);
  return relay;
};

/** Passes until one finds nothing. */
const drain = async (relay: Relay): Promise<void> => {
  while ((await relay.runOnce()).length > 0);
};

const add = (...messages: Parameters<typeof outbox.add>[1][]): Promise<void> =>
  transaction(pool, async (tx) => {
    for (const message of messages) await outbox.add(tx, message);
  });

const rows = async (): Promise<RowDataPacket[]> => {
  const [all] = await admin.query<RowDataPacket[]>('SELECT * FROM outbox ORDER BY seq');
  return all;
};

const states = async (): Promise<string[]> =>
  (await rows()).map(
    (row) => `${row['type']}${JSON.parse(row['payload']).step} ${row['state']}${row['held'] ? ' held' : ''}`,
  );

const steps = (): string[] =>
  seen.map(({ content }) => JSON.parse(content.toString())).map(({ walk, step }) => `${walk}${step}`);

describe('the relay', () => {
  it('publishes a committed message with every property and header, and settles its row', async () => {
    await channel.bindQueue(QUEUE, 'oncebox.events', 'customer.created');
    const message = CustomerCreated.message(
      { customerId: uuidv7(), email: 'zoë@example.com', name: 'Zoë 🚚', version: 1 },
      { correlationId: 'c1', traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' },
    );
    await add(message);
    await drain(newRelay());
    await vi.waitFor(() => expect(seen).toHaveLength(1));
    const [row] = await rows();
    expect(row).toMatchObject({ state: 'published', held: 0, attempts: 0 });
    const occurred: Date = row?.['created_at'];
    expect(row?.['published_at'].getTime()).toBeGreaterThanOrEqual(occurred.getTime());
    const [wire] = seen;
    expect(wire?.content.toString()).toBe(row?.['payload']);
    expect(wire?.fields).toMatchObject({ exchange: 'oncebox.events', routingKey: 'customer.created' });
    expect(wire?.properties).toMatchObject({
      messageId: message.id,
      type: 'CustomerCreated',
      contentType: 'application/json',
      deliveryMode: 2,
      timestamp: Math.floor(occurred.getTime() / 1000),
      correlationId: 'c1',
      appId: schemas.shop.name,
    });
    expect(wire?.properties.headers).toEqual({
      'cloudEvents:specversion': '1.0',
      'cloudEvents:id': message.id,
      'cloudEvents:source': schemas.shop.name,
      'cloudEvents:type': 'CustomerCreated',
      'cloudEvents:time': occurred.toISOString(),
      'cloudEvents:subject': message.payload.customerId,
      schemaversion: 1,
      traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    });
  });

  it('sends what a plain SQL writer stored byte for byte, by <aggregatetype>.<type>', async () => {
    await channel.bindQueue(QUEUE, 'oncebox.events', 'thing.Made');
    const payload = '{"b": 1,\n "a":9007199254740993, "é":"🚚" }';
    await pool.execute(
      "INSERT INTO outbox (id, aggregatetype, aggregateid, type, version, payload) VALUES (?, 'thing', 't1', 'Made', 2, ?)",
      [uuidv7(), payload],
    );
    await drain(newRelay());
    await vi.waitFor(() => expect(seen.map(({ content }) => content.toString())).toEqual([payload]));
  });

  it('keeps a message pending that no queue is bound for, holds its key behind it, and lets the others pass', async () => {
    await add(
      Unheard.message({ walk: 'a', step: 1 }),
      Step.message({ walk: 'a', step: 2 }),
      Step.message({ walk: 'b', step: 1 }),
    );
    const relay = newRelay({ backoff: { firstMs: 1, mostMs: 1 } });
    await relay.runOnce();
    await vi.waitFor(() => expect(steps()).toEqual(['b1']));
    expect(await states()).toEqual(['Unheard1 pending held', 'Step2 pending held', 'Step1 published']);
    const [head, behind] = await rows();
    expect(head).toMatchObject({ attempts: 1, last_error: expect.stringContaining('returned') });
    expect(behind).toMatchObject({ attempts: 0, last_error: null });

    // What comes later to the same key waits too, at no attempt.
    await add(Step.message({ walk: 'a', step: 3 }));
    await vi.waitFor(async () => {
      await relay.runOnce();
      expect(await states()).toEqual([
        'Unheard1 pending held',
        'Step2 pending held',
        'Step1 published',
        'Step3 pending held',
      ]);
    });

    // Once a queue is there, all go, in order.
    await channel.bindQueue(QUEUE, 'oncebox.events', 'walk.unheard');
    await vi.waitFor(async () => {
      await relay.runOnce();
      expect(steps()).toEqual(['b1', 'a1', 'a2', 'a3']);
    });
    expect(new Set((await rows()).map((row) => `${row['state']} ${row['held']}`))).toEqual(new Set(['published 0']));
    const [waiting] = await admin.query<RowDataPacket[]>('SELECT * FROM outbox_waiting');
    expect(waiting).toEqual([]);
  });

  it('doubles the pause after each refusal, up to its limit', async () => {
    await add(Unheard.message({ walk: 'a', step: 1 }));
    const relay = newRelay({ backoff: { firstMs: 60_000, mostMs: 100_000 } });
    const pauses: number[] = [];
    for (let attempt = 1; attempt <= 3; attempt++) {
      await relay.runOnce();
      const [[row]] = await admin.query<RowDataPacket[]>(
        'SELECT attempts, TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(6), available_at) AS pause FROM outbox',
      );
      expect(row?.['attempts']).toBe(attempt);
      pauses.push(Number(row?.['pause']));
      expect(await relay.runOnce()).toEqual([]);
      await admin.query('UPDATE outbox_waiting SET due_at = UTC_TIMESTAMP(6)');
    }
    // Between half and all of 60, 100 and 100 s; a second for what the test itself takes.
    for (const [index, most] of [60, 100, 100].entries()) {
      expect(pauses[index]).toBeGreaterThanOrEqual(most / 2 - 2);
      expect(pauses[index]).toBeLessThanOrEqual(most);
    }
  });

  it('counts an optional message as sent when nobody listens', async () => {
    await add(Whisper.message({ walk: 'a', step: 1 }));
    await drain(newRelay());
    expect(await states()).toEqual(['Whisper1 published']);
  });

  it('parks a row that can never be sent, and its key holds or goes on as the row says', async () => {
    await add(Step.message({ walk: 'a', step: 1 }), Step.message({ walk: 'a', step: 2 }));
    await add(
      Step.message({ walk: 'b', step: 1 }),
      Step.message({ walk: 'b', step: 2 }),
      Step.message({ walk: 'c', step: 1 }),
    );
    await admin.query("UPDATE outbox SET headers = 'no JSON' WHERE payload LIKE '%:1}' AND aggregateid IN ('a', 'b')");
    await admin.query("UPDATE outbox SET when_parked = 'continue' WHERE aggregateid = 'b'");
    const relay = newRelay();
    await drain(relay);
    await vi.waitFor(() => expect(steps().sort()).toEqual(['b2', 'c1']));
    expect(await states()).toEqual([
      'Step1 parked held',
      'Step2 pending held',
      'Step1 parked',
      'Step2 published',
      'Step1 published',
    ]);
    expect((await rows())[0]?.['last_error']).toContain('ONCEBOX_INVALID_HEADERS');
    await add(Step.message({ walk: 'a', step: 3 }));
    await drain(relay);
    expect((await states()).at(-1)).toBe('Step3 pending held');
  });

  it('delivers a row that commits late, below rows that are settled already', async () => {
    const relay = newRelay();
    const late = await pool.getConnection();
    await late.beginTransaction();
    const insert =
      'INSERT INTO outbox (id, aggregatetype, aggregateid, type, version, payload, routing_key) VALUES (?, ?, ?, ?, 1, ?, ?)';
    await late.execute(insert, [uuidv7(), 'walk', 'late', 'Step', '{"walk":"late","step":1}', 'walk.step']);
    // The same partition as `late`, so that the floor of that partition is above it.
    const [[same]] = await admin.query<RowDataPacket[]>("SELECT CRC32('late') % 16 AS p");
    const walk = Array.from({ length: 1_000 }, (_, i) => `w${i}`);
    const [twins] = await admin.query<RowDataPacket[]>(
      `SELECT w.walk FROM (${walk.map((w) => `SELECT '${w}' AS walk`).join(' UNION ALL ')}) AS w WHERE CRC32(w.walk) % 16 = ? LIMIT 1`,
      [same?.['p']],
    );
    const twin = String(twins[0]?.['walk']);
    await add(Step.message({ walk: twin, step: 1 }));
    await drain(relay);
    await vi.waitFor(() => expect(steps()).toEqual([`${twin}1`]));
    await late.commit();
    late.release();
    await relay.runOnce();
    await relay.runOnce();
    await vi.waitFor(() => expect(steps()).toEqual([`${twin}1`, 'late1']));
  });

  it('keeps every key in order while three relays share the work', async () => {
    const walks = Array.from({ length: 25 }, (_, index) => `w${index}-`);
    const all = newRelaysStarted(3);
    for (let step = 1; step <= 40; step++) await add(...walks.map((walk) => Step.message({ walk, step })));
    await vi.waitFor(() => expect(new Set(steps()).size).toBe(1_000), { timeout: 30_000, interval: 50 });
    await Promise.all(all.map((relay) => relay.stop()));
    relays.length = 0;
    const first = [...new Set(steps())];
    for (const walk of walks) {
      const ofWalk = first.filter((each) => each.startsWith(walk));
      expect(ofWalk).toEqual(Array.from({ length: 40 }, (_, index) => `${walk}${index + 1}`));
    }
    expect(new Set((await rows()).map((row) => row['state']))).toEqual(new Set(['published']));
  });

  it('settles nothing that is not confirmed, and frees its partitions with its session', async () => {
    await add(Step.message({ walk: 'a', step: 1 }));
    const asked = Promise.withResolvers<void>();
    const never: Publisher = {
      ready: true,
      publish: () => {
        asked.resolve();
        return new Promise<Outcome>(() => undefined);
      },
    };
    const stuck = createRelay({
      databaseUrls: schemas.relayUrls.split(',').slice(0, 1),
      publisher: never,
      logger: quiet,
    });
    const interrupted = stuck.runOnce();
    interrupted.catch(() => undefined);
    await asked.promise;
    expect(await states()).toEqual(['Step1 pending']);
    const other = newRelay();
    expect((await other.runOnce()).flatMap((result) => result.published)).toEqual([]);
    // The one open transaction of the relay's user on this schema: as when its process dies.
    const [sessions] = await admin.query<RowDataPacket[]>(
      'SELECT trx_mysql_thread_id AS id FROM information_schema.innodb_trx t JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id WHERE p.db = ?',
      [schemas.shop.name],
    );
    expect(sessions).toHaveLength(1);
    await admin.query(`KILL ${Number(sessions[0]?.['id'])}`);
    await vi.waitFor(async () => {
      await other.runOnce();
      expect(await states()).toEqual(['Step1 published']);
    });
  });

  it('counts no attempt when the connection to the broker is cut, and sends again under the same id', async () => {
    const relay = newRelay();
    relay.start();
    const expected = new Set<string>();
    for (let step = 1; step <= 200; step++) {
      const message = Step.message({ walk: `k${step % 7}-`, step });
      expected.add(message.id);
      await add(message);
      if (step === 100) await vhost.closeConnections('relay under test');
    }
    await vi.waitFor(() => expect(new Set(seen.map((message) => message.properties.messageId))).toEqual(expected), {
      timeout: 30_000,
    });
    await vi.waitFor(async () =>
      expect((await rows()).every((row) => row['state'] === 'published' && row['attempts'] === 0)).toBe(true),
    );
  });

  it('deletes rows as it publishes them when nothing is to be kept', async () => {
    await add(Step.message({ walk: 'a', step: 1 }), Unheard.message({ walk: 'b', step: 1 }));
    await drain(newRelay({ retentionHours: 0 }));
    expect(await states()).toEqual(['Unheard1 pending held']);
  });

  it('deletes published rows after the retention, and nothing else however old', async () => {
    await add(...['a', 'b', 'c', 'd'].map((walk) => Step.message({ walk, step: 1 })));
    await admin.query(`UPDATE outbox SET created_at = '2020-01-01', available_at = '2020-01-01',
      state = CASE aggregateid WHEN 'a' THEN 'published' WHEN 'b' THEN 'published' WHEN 'c' THEN 'parked' ELSE 'pending' END,
      held = (aggregateid = 'd'),
      published_at = CASE aggregateid WHEN 'a' THEN UTC_TIMESTAMP(6) - INTERVAL 61 MINUTE WHEN 'b' THEN UTC_TIMESTAMP(6) - INTERVAL 59 MINUTE END`);
    newRelay({ retentionHours: 1 }).start();
    await vi.waitFor(async () => expect((await rows()).map((row) => row['aggregateid'])).toEqual(['b', 'c', 'd']));
  });

  it('drains every schema that it is given', async () => {
    const fulfilment = createPool(schemas.fulfilment.url, { connections: 1 });
    await transaction(fulfilment, (tx) => outbox.add(tx, Step.message({ walk: 'f', step: 1 })));
    await add(Step.message({ walk: 's', step: 1 }));
    await drain(newRelay({ databaseUrls: schemas.relayUrls.split(',') }));
    await vi.waitFor(() => expect(steps().sort()).toEqual(['f1', 's1']));
    expect(new Set(seen.map((message) => message.properties.appId))).toEqual(
      new Set([schemas.shop.name, schemas.fulfilment.name]),
    );
    await fulfilment.end();
  });
});

function newRelaysStarted(count: number): Relay[] {
  const started = Array.from({ length: count }, () => newRelay({ batch: 20 }));
  for (const relay of started) relay.start();
  return started;
}
