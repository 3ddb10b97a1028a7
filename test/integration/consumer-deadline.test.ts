import { createInbox, defineConsumer, type Incoming, on } from '@oncebox/inbox';
import { defineMessage, type Received } from '@oncebox/message';
import { createPool, type Pool, type Transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, beforeEach, expect, inject, test } from 'vitest';
import { z } from 'zod';
import { startProxy } from '../support/proxy.ts';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

const Ticked = defineMessage({
  type: 'Ticked',
  version: 1,
  aggregateType: 'clock',
  aggregateId: () => 'x',
  routingKey: 'clock.ticked',
  payload: z.strictObject({}),
});

let schemas: TestSchemas;
let pool: Pool;
beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  pool = createPool(schemas.fulfilment.adminUrl, { connections: 5 });
});
afterAll(async () => {
  await pool.end();
  await schemas.drop();
});
beforeEach(() => pool.query('DELETE FROM processed_messages'));

const received = (): Received => ({
  id: uuidv7(),
  type: 'Ticked',
  version: 1,
  payload: '{}',
  lineage: {},
  aggregateId: undefined,
  source: undefined,
  occurredAt: undefined,
  routingKey: 'clock.ticked',
});

type Message = Incoming<Record<string, never>>;
const inboxOf = (deadlineMs: number, handle: (tx: Transaction, message: Message) => Promise<void>, database = pool) =>
  createInbox(database, defineConsumer({ name: 'c', handlers: [on(Ticked, { handle })], deadlineMs }));

const LATE = { kind: 'retry', error: { name: 'InboxError', code: 'ONCEBOX_HANDLER_DEADLINE' } };

async function processed(): Promise<number> {
  const [rows] = await pool.query<RowDataPacket[]>('SELECT 1 FROM processed_messages');
  return rows.length;
}
/** Of this schema's connections. The server renews its view only when nobody has read it for 100 ms. */
async function openTransactions(): Promise<number> {
  const [rows] = await pool.query<RowDataPacket[]>(
    `SELECT 1 FROM information_schema.processlist p JOIN information_schema.innodb_trx t ON t.trx_mysql_thread_id = p.id WHERE p.db = ?`,
    [schemas.fulfilment.name],
  );
  return rows.length;
}
const never = () => new Promise<never>(() => undefined);
const someTime = { timeout: 30_000, interval: 200 };

test('a handler that never ends is a failure at its deadline, nothing of it is left, and the message can be handled', async () => {
  const message = received();
  expect(await inboxOf(200, never).process(message)).toMatchObject(LATE);
  await expect.poll(openTransactions, someTime).toBe(0);
  expect(await processed()).toBe(0);
  expect(await inboxOf(5_000, async () => undefined).process(message)).toEqual({ kind: 'handled' });
});

test('one that hangs in a statement too, and the statement is not waited for', async () => {
  const hanging = inboxOf(200, async (tx) => void (await tx.query('SELECT SLEEP(300)')));
  expect(await hanging.process(received())).toMatchObject(LATE);
  expect(await processed()).toBe(0);
});

test('one that goes on after its deadline can write nothing more', async () => {
  const late = Promise.withResolvers<void>();
  const outcome = Promise.withResolvers<unknown>();
  const inbox = inboxOf(200, async (tx) => {
    await late.promise;
    await Promise.resolve(tx)
      .then((open) => open.query("INSERT INTO processed_messages (consumer, message_id) VALUES ('late', 'x')"))
      .then(outcome.resolve, outcome.resolve);
  });
  expect(await inbox.process(received())).toMatchObject(LATE);
  late.resolve();
  expect(await outcome.promise).toMatchObject({ code: 'ONCEBOX_NOT_A_TRANSACTION' });
  expect(await processed()).toBe(0);
});

test('prepare is told by its signal, and its late answer comes to nothing', async () => {
  const told = Promise.withResolvers<unknown>();
  let handled = 0;
  const prepare = (_message: Message, signal: AbortSignal): Promise<number> =>
    new Promise((resolve) => {
      signal.addEventListener('abort', () => {
        told.resolve(signal.reason);
        resolve(1);
      });
    });
  const handle = async () => void handled++;
  const handlers = [on(Ticked, { prepare, handle })];
  const inbox = createInbox(pool, defineConsumer({ name: 'c', handlers, deadlineMs: 100 }));
  expect(await inbox.process(received())).toMatchObject(LATE);
  expect(await told.promise).toMatchObject({ code: 'ONCEBOX_HANDLER_DEADLINE' });
  expect(handled).toBe(0);
});

/** Resolves when another consumer's `prepare` has met a deadline of so many milliseconds. */
function deadlinePasses(deadlineMs: number): Promise<void> {
  const passed = Promise.withResolvers<void>();
  const prepare = (_message: Message, signal: AbortSignal): Promise<never> => {
    signal.addEventListener('abort', () => passed.resolve());
    return never();
  };
  const handlers = [on(Ticked, { prepare, handle: async () => undefined })];
  const other = createInbox(pool, defineConsumer({ name: 'other', handlers, deadlineMs }));
  other.process(received()).catch(passed.reject);
  return passed.promise;
}

test('prepare and transaction have one deadline together', async () => {
  const handlers = [on(Ticked, { prepare: () => deadlinePasses(700), handle: () => deadlinePasses(700) })];
  const inbox = createInbox(pool, defineConsumer({ name: 'c', handlers, deadlineMs: 1_000 }));
  expect(await inbox.process(received())).toMatchObject(LATE);
});

test('waiting for a connection costs a handler nothing of its time', async () => {
  const one = createPool(schemas.fulfilment.url, { connections: 1 });
  const taken = await one.getConnection();
  const handlers = [on(Ticked, { handle: async () => undefined })];
  // In a batch, a message that is late gets a second attempt, alone.
  const inbox = createInbox(one, defineConsumer({ name: 'c', handlers, deadlineMs: 1_000, batch: 1 }));
  const verdict = inbox.process(received());
  await deadlinePasses(1_500);
  taken.release();
  expect(await verdict).toEqual({ kind: 'handled' });
  await one.end();
});

test('a database that falls silent under a handler is an outage, and not the fault of the message', async () => {
  const proxy = await startProxy(schemas.fulfilment.url);
  const distant = createPool(proxy.url, { connections: 2 });
  const handle = async (tx: Transaction) => {
    proxy.blackhole('toServer', 'toClient');
    await tx.query('SELECT 1');
  };
  expect((await inboxOf(500, handle, distant).process(received())).kind).toBe('unavailable');
  await proxy.refuse();
  expect(await processed()).toBe(0);
  await distant.end();
});
