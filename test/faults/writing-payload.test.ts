import { join } from 'node:path';
import { defineMessage } from '@oncebox/message';
import { transaction } from '@oncebox/mysql';
import { outbox } from '@oncebox/outbox';
import { v7 as uuidv7 } from 'uuid';
import { expect, it } from 'vitest';
import { z } from 'zod';
import { newSystem, shopPool } from '../support/customers.ts';
import { checkInvariants } from '../support/invariants.ts';
import { postCustomer, type System, send } from '../support/system.ts';

const PATIENCE = { timeout: 30_000, interval: 50 };

/** Everything that was published for keys other than customers, as bytes. */
async function bodies(system: System, count: number, key = '#'): Promise<string[]> {
  const channel = await system.vhost.channel();
  await channel.assertQueue('bodies', { durable: true, arguments: { 'x-queue-type': 'quorum' } });
  await channel.bindQueue('bodies', 'oncebox.events', key);
  const found: string[] = [];
  await channel.consume('bodies', (message) => void (message && found.push(message.content.toString())), {
    noAck: true,
  });
  system.relay();
  await expect.poll(() => found.length, PATIENCE).toBe(count);
  return found;
}

it('8: a payload that the packet, the column or the broker cannot take is refused before anything is written', async () => {
  const system = await newSystem();
  const pool = shopPool(system);
  const Blob = defineMessage({
    type: 'Blob',
    version: 1,
    aggregateType: 'blob',
    aggregateId: () => 'b',
    routingKey: 'blob.made',
    payload: z.string(),
    maxBytes: 32 * 1024 * 1024,
  });
  const [server] = await system.shop('SELECT @@max_allowed_packet AS packet');
  const cap = Math.min(16 * 1024 * 1024 - 1, Number(server?.['packet']) - 16 * 1024);
  // Two bytes are the quotes of the JSON string.
  const add = (bytes: number) => transaction(pool, (tx) => outbox.add(tx, Blob.message('x'.repeat(bytes - 2))));
  await add(cap - 1);
  await add(cap);
  await expect(add(cap + 1)).rejects.toMatchObject({ code: 'ONCEBOX_MESSAGE_TOO_LARGE' });

  const api = await system.api();
  const large = await send(api, 'POST', '/customers', { email: 'big@example.com', name: 'x'.repeat(200_000) });
  expect(large.status).toBe(413);

  // What was taken can be sent, too.
  expect((await bodies(system, 2, 'blob.made')).map((body) => body.length)).toEqual([cap - 1, cap]);
  await checkInvariants(system, { accepted: [], refused: ['big@example.com'] });
});

it('9: a payload is stored and published byte for byte', async () => {
  const system = await newSystem();
  const payloads = [
    '{"z":1,"a":2,"10":3,"9":4}', // the order of keys
    '{"n":9007199254740993}', // 2^53 + 1
    '{"f":1.0,"e":1e2,"m":-0}',
    '{ "spaced" :\t"out" ,\n"twice":1,"twice":2 }',
    '"🚚 \u00e9 e\u0301 \u2028 \\u00e9 \\u0000"',
  ];
  for (const [n, payload] of payloads.entries()) {
    await system.shop(
      'INSERT INTO outbox (id, aggregatetype, aggregateid, type, version, payload) VALUES (?, ?, ?, ?, ?, ?)',
      [uuidv7(), 'thing', 'the same key, so that they come in order', 'Made', String(n + 1), payload],
    );
  }
  const stored = await system.shop('SELECT payload FROM outbox ORDER BY seq');
  expect(stored.map((row) => row['payload'])).toEqual(payloads);
  expect(await bodies(system, payloads.length, 'thing.Made')).toEqual(payloads);
  await checkInvariants(system, { accepted: [] });
});

it("10: with processes in another zone and their clocks hours off, all times are UTC by the database's clock", async () => {
  const system = await newSystem();
  const wrong = (hours: number) => ({
    TZ: 'America/New_York',
    NODE_OPTIONS: `--import=${join(import.meta.dirname, '../support/shifted-clock.ts')}`,
    ONCEBOX_CLOCK_SHIFT_MS: String(hours * 3_600_000),
  });
  const [api, worker] = [await system.api(wrong(-2)), system.worker(wrong(2))];
  await worker.ready();
  const queue = 'timestamps';
  const channel = await system.vhost.channel();
  await channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
  await channel.bindQueue(queue, 'oncebox.events', 'customer.created');
  // By its own clock, everything is past its retention at once.
  system.relay({ ...wrong(2), RELAY_RETENTION_HOURS: '1' });
  const accepted = [await postCustomer(api, 'early'), await postCustomer(api, 'late')];

  // The fault was there: a UUIDv7 begins with its maker's clock.
  const made = accepted.map((id) => Number.parseInt(id.slice(0, 13).replace('-', ''), 16));
  expect(made.map((milliseconds) => Math.round((milliseconds - Date.now()) / 3_600_000))).toEqual([-2, -2]);

  await checkInvariants(system, { accepted });
  const isRight = async (look: System['shop'], table: string, column: string) => {
    const rows = await look(`SELECT TIMESTAMPDIFF(SECOND, ${column}, UTC_TIMESTAMP(6)) AS age FROM ${table}`);
    return rows.map((row) => Math.abs(Number(row['age'])) < 300);
  };
  const right = [true, true];
  expect(await isRight(system.shop, 'customers', 'created_at')).toEqual(right);
  expect(await isRight(system.shop, 'outbox', 'created_at')).toEqual(right);
  expect(await isRight(system.shop, 'outbox', 'published_at')).toEqual(right);
  expect(await isRight(system.fulfilment, 'emails', 'created_at')).toEqual(right);
  expect(await isRight(system.fulfilment, 'processed_messages', 'processed_at')).toEqual([...right, ...right]);
  const [row] = await system.shop('SELECT created_at FROM outbox ORDER BY seq');
  const message = await channel.get(queue, { noAck: true });
  if (message === false) throw new Error('nothing was published');
  const seconds = Math.floor(row?.['created_at'].getTime() / 1_000);
  expect(message.properties.timestamp).toBe(seconds);
  const response = await fetch(`${api.url}/customers/${accepted[0]}`);
  expect(JSON.parse(await response.text()).createdAt).toMatch(/Z$/);
});
