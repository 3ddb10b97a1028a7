import { createInbox, defineConsumer, on, onBatch } from '@oncebox/inbox';
import { defineMessage } from '@oncebox/message';
import { createPool, type Pool } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { z } from 'zod';
import { consume, newName, PATIENCE, start, vhost } from '../support/consumers.ts';
import { startProxy } from '../support/proxy.ts';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

/** As the worker's database user. */

let schemas: TestSchemas;
let pool: Pool;
beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  pool = createPool(schemas.fulfilment.url, { connections: 10 });
});
afterAll(async () => {
  await pool.end();
  await schemas.drop();
});

const contract = (type: string, version = 1) =>
  defineMessage({
    type,
    version,
    aggregateType: 'thing',
    aggregateId: () => 'x',
    routingKey: `thing.${type}`,
    payload: z.strictObject({}),
  });

const inboxOf = (name: string, contracts: ReturnType<typeof contract>[], database = pool) =>
  createInbox(
    database,
    defineConsumer({ name, handlers: contracts.map((each) => on(each, { handle: async () => undefined })) }),
  );

async function registered(consumer: string): Promise<Record<string, Date>> {
  const [rows] = await pool.query<RowDataPacket[]>('SELECT type, since FROM consumers WHERE consumer = ?', [consumer]);
  return Object.fromEntries(rows.map((row) => [row['type'], row['since']]));
}

test('a consumer that starts to consume is registered with the types it handles, not before its queue is bound', async () => {
  const name = newName();
  const inbox = inboxOf(name, [contract('Moved', 1), contract('Moved', 2), contract('Sold')]);
  const register = async () => {
    expect(await vhost.bindings(name)).toEqual(['', 'thing.Moved', 'thing.Sold']);
    await inbox.register();
  };
  expect(await registered(name)).toEqual({});
  await consume(name, inbox.process, { ...inbox, register });
  const found = await registered(name);
  expect(Object.keys(found).sort()).toEqual(['Moved', 'Sold']);
  for (const since of Object.values(found)) expect(Math.abs(Date.now() - since.getTime())).toBeLessThan(60_000);
});

test('a type keeps its since, a new one begins now, one that is no longer handled goes, and other consumers are left alone', async () => {
  const [name, other] = [newName(), newName()];
  await inboxOf(other, [contract('Moved')]).register();
  await inboxOf(name, [contract('Moved'), contract('Sold')]).register();
  const before = await registered(name);
  await inboxOf(name, [contract('Moved', 2), contract('Broken')]).register();
  const after = await registered(name);
  expect(Object.keys(after).sort()).toEqual(['Broken', 'Moved']);
  expect(after['Moved']).toEqual(before['Moved']);
  expect(after['Broken']?.getTime()).toBeGreaterThan(before['Moved']?.getTime() ?? Number.NaN);
  expect(Object.keys(await registered(other))).toEqual(['Moved']);
});

test('what is written down of replays and order follows the definition, and leaves since as it is', async () => {
  const name = newName();
  const written = async () => {
    const [rows] = await pool.query<RowDataPacket[]>(
      'SELECT type, replays, ordered FROM consumers WHERE consumer = ? ORDER BY type',
      [name],
    );
    return rows.map(({ type, replays, ordered }) => `${type} ${replays} ${ordered}`);
  };
  const handle = async () => undefined;
  const register = (replays: boolean, ordered: boolean) => {
    const handlers = [on(contract('A'), { replays, handle }), onBatch(contract('B'), { handle })];
    return createInbox(pool, defineConsumer({ name, handlers, ordered })).register();
  };
  await register(false, false);
  expect(await written()).toEqual(['A 0 0', 'B 0 0']);
  const before = await registered(name);
  await register(true, false);
  expect(await written()).toEqual(['A 1 0', 'B 0 0']);
  await register(true, true);
  expect(await written()).toEqual(['A 1 1', 'B 0 1']);
  expect((await registered(name))['A']).toEqual(before['A']);
});

test('names of types that differ in case are different types', async () => {
  const name = newName();
  await inboxOf(name, [contract('Moved'), contract('MOVED')]).register();
  await inboxOf(name, [contract('Moved')]).register();
  expect(Object.keys(await registered(name))).toEqual(['Moved']);
});

test('workers that start at the same moment all succeed', async () => {
  const name = newName();
  const contracts = ['A', 'B', 'C', 'D'].map((type) => contract(type));
  await Promise.all(Array.from({ length: 10 }, () => inboxOf(name, contracts).register()));
  expect(Object.keys(await registered(name)).sort()).toEqual(['A', 'B', 'C', 'D']);
});

test('while it cannot be registered nothing is consumed, and it is tried again', async () => {
  const name = newName();
  const proxy = await startProxy(schemas.fulfilment.url);
  const distant = createPool(proxy.url, { connections: 2 });
  await proxy.refuse();
  const inbox = inboxOf(name, [contract('Moved')], distant);
  const lines: string[] = [];
  const keep = (_fields: object, text: string): void => void lines.push(text);
  const logger = { info: keep, warn: keep, error: keep };
  const consumer = start(name, inbox.process, { ...inbox, probe: async () => undefined, logger });
  await expect.poll(() => lines.filter((line) => line.startsWith('not consuming')).length, PATIENCE).toBeGreaterThan(1);
  expect(consumer.consuming).toBe(false);
  await proxy.pass();
  await expect.poll(() => consumer.consuming, PATIENCE).toBe(true);
  expect(Object.keys(await registered(name))).toEqual(['Moved']);
  await consumer.stop();
  await distant.end();
});
