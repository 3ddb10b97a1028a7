import { tmpdir } from 'node:os';
import { CustomerCreated, CustomerUpdated } from '@oncebox/contracts';
import { createInbox, defineConsumer, on } from '@oncebox/inbox';
import { REPLAY_HEADER } from '@oncebox/message';
import { createPool, type Pool, type Transaction } from '@oncebox/mysql';
import { connectBroker, startConsumer } from '@oncebox/rabbitmq';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { startOncebox } from '../support/oncebox.ts';
import { rightsOf } from '../support/rights.ts';
import { type Api, createSystem, postCustomer, type System, send } from '../support/system.ts';

/** The log and `oncebox replay`, with the rights that docker-compose.yml gives the processes. */

const PATIENCE = { timeout: 60_000, interval: 50 };
const CUSTOMERS = 20;
const CHANGED = 5;

let system: System;
let admin: Pool;
let env: Record<string, string>;
const closing: { stop(): Promise<unknown> }[] = [];

beforeAll(async () => {
  system = await createSystem(inject('servers'));
  admin = createPool(system.schemas.fulfilment.adminUrl, { connections: 10 });
  env = {
    WORKER_DATABASE_URL: system.schemas.fulfilment.url,
    AMQP_URL: await system.vhost.userWith(rightsOf('worker')),
  };
});
afterAll(async () => {
  for (const each of closing) await each.stop();
  await admin.end();
  await system.drop();
});

const replay = (...args: string[]) =>
  startOncebox(['replay', '--settled-for', '0s', '--json', ...args], env, tmpdir()).ended;
async function counts(...args: string[]): Promise<unknown> {
  const { code, stdout, stderr } = await replay(...args);
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout).counts;
}
const ids = async (table: 'processed_messages' | 'emails', consumer = '') =>
  (
    await system.fulfilment(
      table === 'emails'
        ? 'SELECT message_id AS id FROM emails ORDER BY id'
        : 'SELECT CAST(message_id AS CHAR) AS id FROM processed_messages WHERE consumer = ? ORDER BY id',
      [consumer],
    )
  ).map(({ id }) => String(id));

/** A consumer that writes down what it is given, in the order of its effects. @returns `<customer> <version>` of each. */
async function add(name: string, ordered: boolean): Promise<() => Promise<string[]>> {
  const table = name.replace('.', '_').replace('-', '_');
  await admin.query('CREATE TABLE ?? (seq INT AUTO_INCREMENT PRIMARY KEY, seen VARCHAR(60) NOT NULL)', [table]);
  const handle = async (tx: Transaction, { payload }: { payload: { customerId: string; version: number } }) => {
    await tx.query('INSERT INTO ?? (seen) VALUES (?)', [table, `${payload.customerId} ${payload.version}`]);
  };
  const handlers = [on(CustomerCreated, { replays: true, handle }), on(CustomerUpdated, { replays: true, handle })];
  const logger = { info: () => undefined, warn: () => undefined, error: () => undefined };
  const broker = connectBroker({ urls: [system.vhost.amqpUrl], name, logger });
  const inbox = createInbox(admin, defineConsumer({ name, handlers, ordered }));
  const consumer = startConsumer({ broker, inbox, logger });
  closing.push(consumer, { stop: () => broker.close() });
  await expect.poll(() => consumer.consuming, PATIENCE).toBe(true);
  return async () => (await system.fulfilment('SELECT seen FROM ?? ORDER BY seq', [table])).map(({ seen }) => seen);
}

async function patch(api: Api, id: string, name: string, version: number): Promise<void> {
  const { status } = await send(api, 'PATCH', `/customers/${id}`, { name }, { 'if-match': `"${version}"` });
  expect(status).toBe(200);
}

test('a consumer that is added later catches up with one that was there; nothing is handled again, and no e-mail is sent', async () => {
  const relay = system.relay({ RELAY_LOG: 'on', AMQP_URL: await system.vhost.userWith(rightsOf('relay')) });
  const worker = system.worker();
  await Promise.all([relay.ready(), worker.ready()]);
  const api = await system.api();
  const customers = await Promise.all(Array.from({ length: CUSTOMERS }, (_, index) => postCustomer(api, `r${index}`)));
  for (const version of [1, 2])
    for (const id of customers.slice(0, CHANGED)) await patch(api, id, `New ${version}`, version);
  const messages = CUSTOMERS + 2 * CHANGED;
  const directory = () => ids('processed_messages', 'customer-directory');
  await expect.poll(async () => (await directory()).length, PATIENCE).toBe(messages);
  await expect.poll(async () => (await ids('emails')).length, PATIENCE).toBe(CUSTOMERS);

  const [late, inOrder] = [await add('customer-directory.late', false), await add('customer-directory.o', true)];
  expect(await late()).toEqual([]);
  const dry = await counts('--consumer', 'customer-directory.late', '--dry-run');
  expect(dry).toEqual({ 'would send': messages });
  expect(await counts('--consumer', 'customer-directory.late')).toEqual({ sent: messages });
  expect(await counts('--consumer', 'customer-directory.o')).toEqual({ sent: messages });
  for (const name of ['customer-directory.late', 'customer-directory.o']) {
    await expect.poll(async () => await ids('processed_messages', name), PATIENCE).toEqual(await directory());
  }
  const state = await system.fulfilment('SELECT customer_id AS id, version FROM customer_directory');
  const newest = (seen: string[]) => Object.fromEntries(seen.toSorted().map((each) => each.split(' ')));
  expect(newest(await late())).toEqual(Object.fromEntries(state.map(({ id, version }) => [id, String(version)])));
  const ordered = Map.groupBy(await inOrder(), (seen) => seen.split(' ')[0]);
  for (const [id, seen] of ordered)
    expect(seen).toEqual(['1', '2', '3'].slice(0, seen.length).map((n) => `${id} ${n}`));

  // Again, and for one that was there: all has been handled.
  expect(await counts('--consumer', 'customer-directory.late')).toEqual({ handled: messages });
  expect(await late()).toHaveLength(messages);
  expect(await counts('--consumer', 'customer-directory', '--type', 'CustomerUpdated', '--from', '1h')).toEqual({
    handled: messages - CUSTOMERS,
  });
  expect(await counts('--consumer', 'customer-directory', '--from', '0s')).toEqual({});
  const refused = await replay('--consumer', 'welcome-email', '--force');
  expect(refused).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('takes no history') });
  // Nor does a marked message that reaches it all the same.
  const channel = await system.vhost.channel();
  const headers = { schemaversion: 1, [REPLAY_HEADER]: 'true' };
  channel.sendToQueue('welcome-email', Buffer.from('{}'), { messageId: 'marked', type: 'CustomerCreated', headers });
  await worker.said(/^history, which its handler does not take/);
  expect(await ids('emails')).toHaveLength(CUSTOMERS);
  expect(await ids('processed_messages', 'welcome-email')).not.toContain('marked');
});

test('what the inbox may have forgotten is refused unless forced, but not for a consumer that was added since; what was given up is left alone', async () => {
  const late = 'customer-directory.late';
  const all = await ids('processed_messages', late);
  await admin.query('DELETE FROM processed_messages');
  await admin.query('UPDATE retention SET forgotten_before = UTC_TIMESTAMP(6)');
  // As a worker of an older release leaves it, which has not known the type, when the newer one starts again.
  await admin.query('UPDATE consumers SET since = UTC_TIMESTAMP(6) WHERE consumer = ? AND type = ?', [
    late,
    CustomerCreated.type,
  ]);
  const refused = await replay('--consumer', late);
  expect(refused.code).toBe(1);
  expect(JSON.parse(refused.stdout).counts).toEqual({ forgotten: 1 });
  expect(await ids('processed_messages', late)).toEqual([]);

  const later = 'customer-directory.later';
  await add(later, false);
  const letters = ['dead', 'discarded', 'replayed'].map((state, index) => {
    return [later, Buffer.from(all[index] ?? ''), 'customer.created', '{}', '', 'x', 1, state, Buffer.alloc(32, index)];
  });
  await admin.query(
    'INSERT INTO dead_letters (consumer, message_id, routing_key, properties, body, reason, attempts, state, copy_hash) VALUES ?',
    [letters],
  );
  expect(await counts('--consumer', later)).toEqual({ 'given up': 2, sent: all.length - 2 });
  await expect.poll(() => ids('processed_messages', later), PATIENCE).toEqual(all.slice(2));
  expect(await counts('--consumer', late, '--force')).toEqual({ sent: all.length });
  await expect.poll(() => ids('processed_messages', late), PATIENCE).toEqual(all);
});
