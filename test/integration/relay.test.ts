import { crc32 } from 'node:zlib';
import { CustomerCreatedV1 } from '@oncebox/contracts';
import { createPool, transaction } from '@oncebox/mysql';
import { outbox } from '@oncebox/outbox';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { describe, expect, it, vi } from 'vitest';
import {
  add,
  admin,
  channel,
  drain,
  newRelay,
  pool,
  QUEUE,
  rows,
  Step,
  schemas,
  seen,
  states,
  steps,
  Unheard,
  useRelays,
} from '../support/walks.ts';

useRelays();

describe('the relay', () => {
  it('publishes a committed message with every property and header, and settles its row', async () => {
    await channel.bindQueue(QUEUE, 'oncebox.events', 'customer.created');
    const message = CustomerCreatedV1.message(
      { customerId: uuidv7(), email: 'zoe@example.com', name: 'Zoë 🚚', version: 1 },
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
      partition: String(crc32(message.payload.customerId) % 16),
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
    startRelays(3);
    for (let step = 1; step <= 40; step++) await add(...walks.map((walk) => Step.message({ walk, step })));
    await vi.waitFor(() => expect(new Set(steps()).size).toBe(1_000), { timeout: 30_000, interval: 50 });
    const first = [...new Set(steps())];
    for (const walk of walks) {
      const ofWalk = first.filter((each) => each.startsWith(walk));
      expect(ofWalk).toEqual(Array.from({ length: 40 }, (_, index) => `${walk}${index + 1}`));
    }
    await vi.waitFor(async () =>
      expect(new Set((await rows()).map((row) => row['state']))).toEqual(new Set(['published'])),
    );
  });

  it('deletes rows as it publishes them when nothing is to be kept', async () => {
    await add(Step.message({ walk: 'a', step: 1 }), Unheard.message({ walk: 'b', step: 1 }));
    await drain(newRelay({ retentionHours: 0 }));
    expect(await states()).toEqual(['Unheard1 pending held']);
    // What is gone can no longer be asked about, and that is written down.
    const [marks] = await admin.query<RowDataPacket[]>(
      'SELECT MIN(forgotten_before <= UTC_TIMESTAMP(6)) AS past FROM outbox_partition WHERE forgotten_before IS NOT NULL',
    );
    expect(marks).toEqual([{ past: 1 }]);
  });

  it('deletes published rows after the retention, and nothing else however old', async () => {
    await add(...['a', 'b', 'c', 'd'].map((walk) => Step.message({ walk, step: 1 })));
    await admin.query(`UPDATE outbox SET created_at = '2020-01-01', available_at = '2020-01-01',
      state = CASE aggregateid WHEN 'a' THEN 'published' WHEN 'b' THEN 'published' WHEN 'c' THEN 'parked' ELSE 'pending' END,
      held = (aggregateid = 'd'),
      published_at = CASE aggregateid WHEN 'a' THEN UTC_TIMESTAMP(6) - INTERVAL 61 MINUTE WHEN 'b' THEN UTC_TIMESTAMP(6) - INTERVAL 59 MINUTE END`);
    newRelay({ retentionHours: 1 }).start();
    await vi.waitFor(async () => expect((await rows()).map((row) => row['aggregateid'])).toEqual(['b', 'c', 'd']));
    const [marks] = await admin.query<RowDataPacket[]>(
      "SELECT partition_id = CRC32('a') % 16 AS ofA, forgotten_before FROM outbox_partition WHERE forgotten_before < '2021-01-01'",
    );
    expect(marks).toEqual([{ ofA: 1, forgotten_before: new Date('2020-01-01T00:00:00.001Z') }]);
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

function startRelays(count: number): void {
  for (let started = 0; started < count; started++) newRelay({ batch: 20 }).start();
}
