import { createInbox, defineConsumer, on } from '@oncebox/inbox';
import { defineMessage } from '@oncebox/message';
import { createPool, type Pool } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { z } from 'zod';
import { consume, handled, newName, PATIENCE, send, vhost } from '../support/consumers.ts';
import { startProxy, type TcpProxy } from '../support/proxy.ts';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

/** A consumer on a database that comes and goes. It has no attempt to lose: a single failure that counts is a dead letter. */

let schemas: TestSchemas;
let admin: Pool;
beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  admin = createPool(schemas.fulfilment.adminUrl, { connections: 5 });
  await admin.query(
    'CREATE TABLE effects (consumer VARCHAR(50) NOT NULL, message_id VARBINARY(255) NOT NULL) ENGINE = InnoDB',
  );
});
afterAll(async () => {
  await admin.end();
  await schemas.drop();
});

async function effects(consumer: string): Promise<string[]> {
  const [rows] = await admin.query<RowDataPacket[]>(
    'SELECT CAST(message_id AS CHAR) AS id FROM effects WHERE consumer = ? ORDER BY 1',
    [consumer],
  );
  return rows.map((row) => String(row['id']));
}

// A deadline well above what a handler takes on a busy machine: past it, with the database back, the message would be dead.
const outages: { how: string; cause: (proxy: TcpProxy) => Promise<void> | void; deadlineMs: number }[] = [
  { how: 'refuses connections', cause: (proxy) => proxy.refuse(), deadlineMs: 10_000 },
  { how: 'falls silent', cause: (proxy) => proxy.blackhole('toServer', 'toClient'), deadlineMs: 2_000 },
  { how: 'gives no answers', cause: (proxy) => proxy.blackhole('toClient'), deadlineMs: 2_000 },
];

test.each(outages)(
  'a database that $how, again and again, pauses consumption, and everything takes effect once',
  async ({ cause, deadlineMs }) => {
    const name = newName();
    const proxy = await startProxy(schemas.fulfilment.adminUrl);
    const distant = createPool(proxy.url, { connections: 5 });
    const Ticked = defineMessage({
      type: 'Ticked',
      version: 1,
      aggregateType: 'clock',
      aggregateId: () => 'x',
      routingKey: name,
      payload: z.strictObject({}),
    });
    let callsToOutage = 0;
    let broken: unknown;
    const handler = on(Ticked, {
      async handle(tx, { id }) {
        // In the middle of a transaction, with others under way beside it.
        if (--callsToOutage === 0) broken = cause(proxy);
        await tx.execute('INSERT INTO effects (consumer, message_id) VALUES (?, ?)', [name, Buffer.from(id)]);
      },
    });
    const inbox = createInbox(distant, defineConsumer({ name, handlers: [handler], retryDelaysMs: [], deadlineMs }));
    const consumer = await consume(name, inbox.process, { ...inbox, prefetch: 10 });
    const ids: string[] = [];
    for (let times = 0; times < 2; times++) {
      callsToOutage = 15;
      for (let i = 0; i < 30; i++) ids.push(send(name, { type: 'Ticked' }));
      await expect.poll(() => consumer.consuming, { ...PATIENCE, timeout: 45_000 }).toBe(false);
      await broken;
      await proxy.pass();
      await expect.poll(() => consumer.consuming, { ...PATIENCE, timeout: 45_000 }).toBe(true);
    }
    await expect.poll(() => effects(name), PATIENCE).toHaveLength(60);
    await consumer.stop();
    expect(await effects(name)).toEqual(ids.sort());
    expect(await vhost.depth(name)).toBe(0);
    expect(await vhost.depth(`${name}.dead`)).toBe(0);
    const [dead] = await admin.query<RowDataPacket[]>('SELECT reason FROM dead_letters WHERE consumer = ?', [name]);
    expect(dead).toEqual([]);
    await proxy.refuse();
    await distant.end();
  },
  240_000,
);

test('a message that is in hand through many outages loses no attempt by them', async () => {
  const name = newName();
  let away = false;
  let calls = 0;
  const probe = async (): Promise<void> => {
    if (!away) return;
    away = false;
    throw Object.assign(new Error('away'), { code: 'ECONNREFUSED' });
  };
  await consume(
    name,
    async () => {
      if (++calls > 8) return handled;
      away = true;
      return { kind: 'unavailable', error: Object.assign(new Error('away'), { code: 'ECONNREFUSED' }) };
    },
    { probe, retryDelaysMs: [] },
  );
  send(name);
  await expect.poll(() => calls, PATIENCE).toBe(9);
  expect(await vhost.depth(`${name}.dead`)).toBe(0);
});
