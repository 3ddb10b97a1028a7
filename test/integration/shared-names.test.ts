import { tmpdir } from 'node:os';
import { createInbox, defineConsumer, on } from '@oncebox/inbox';
import { defineMessage, nextVersion, toWire } from '@oncebox/message';
import { createPool, type Pool } from '@oncebox/mysql';
import { type Consumer, connectBroker, startConsumer } from '@oncebox/rabbitmq';
import type { Channel } from 'amqplib';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, afterEach, beforeAll, expect, inject, test } from 'vitest';
import { z } from 'zod';
import { type Ended, startOncebox } from '../support/oncebox.ts';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';
import { createVhost, type Vhost } from '../support/vhost.ts';

/** What becomes of messages when two services, two workers or two releases use one consumer's name, and what is said of it. */

const PATIENCE = { timeout: 60_000, interval: 50 };
const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined };

let vhost: Vhost;
let channel: Channel;
let ours: TestSchemas;
let theirs: TestSchemas;
/** As the administrator. */
let admin: Pool;
const pools = new Map<string, Pool>();
beforeAll(async () => {
  vhost = await createVhost(inject('servers'));
  channel = await vhost.channel();
  [ours, theirs] = await Promise.all([createSchemas(inject('servers')), createSchemas(inject('servers'))]);
  admin = createPool(ours.fulfilment.adminUrl, { connections: 2 });
});
afterAll(async () => {
  await Promise.all([...pools.values(), admin].map((pool) => pool.end()));
  await Promise.all([ours.drop(), theirs.drop(), vhost.drop()]);
});

const started: { stop(): Promise<unknown> }[] = [];
afterEach(async () => {
  for (const each of started.splice(0)) await each.stop();
});

function poolOf({ fulfilment: { url } }: TestSchemas): Pool {
  const pool = pools.get(url) ?? createPool(url, { connections: 20 });
  pools.set(url, pool);
  return pool;
}

const payload = z.strictObject({ n: z.int() });
const contract = (type: string) =>
  defineMessage({
    type,
    version: 1,
    aggregateType: 'thing',
    aggregateId: ({ n }) => `${n}`,
    routingKey: `thing.${type}`,
    payload,
  });
const [Moved, Sold] = [contract('Moved'), contract('Sold')];
const MovedTwice = nextVersion(Moved, { payload, aggregateId: ({ n }) => `${n}`, upcast: (earlier) => earlier });
type Any = typeof Moved;

const newName = () => `shared-${uuidv7()}`;

interface Worker {
  readonly consumer: Consumer;
  readonly seen: string[];
  readonly said: { readonly code: unknown; readonly text: string }[];
  stop(): Promise<void>;
}

/** One worker of a release that handles these. */
function work(
  name: string,
  contracts: readonly Any[],
  { schemas = ours, ordered = false }: { schemas?: TestSchemas; ordered?: boolean } = {},
): Worker {
  const seen: string[] = [];
  const said: Worker['said'] = [];
  const say = (fields: object, text: string): void => void said.push({ code: Reflect.get(fields, 'code'), text });
  const handlers = contracts.map((each) =>
    on(each, {
      async handle(_tx, message) {
        seen.push(`${message.type} ${message.payload.n}`);
      },
    }),
  );
  const broker = connectBroker({ urls: [vhost.amqpUrl], name, logger: quiet });
  const inbox = createInbox(poolOf(schemas), defineConsumer({ name, handlers, ordered, retryDelaysMs: [50, 100] }));
  const consumer = startConsumer({ broker, inbox, logger: { info: () => undefined, warn: say, error: say } });
  const stop = async (): Promise<void> => {
    await consumer.stop();
    await broker.close();
  };
  started.push({ stop });
  return { consumer, seen, said, stop };
}

async function working(...given: Parameters<typeof work>): Promise<Worker> {
  const worker = work(...given);
  await expect.poll(() => worker.consumer.consuming, PATIENCE).toBe(true);
  return worker;
}

function publish({ exchange, routingKey, type, version }: Any, n: number): void {
  const { body, properties } = toWire({
    id: uuidv7(),
    type,
    version,
    aggregateId: `${n}`,
    partition: n % 16,
    payload: JSON.stringify({ n }),
    lineage: {},
    exchange,
    routingKey,
    mandatory: true,
    source: 'test',
    occurredAt: new Date(),
  });
  channel.publish(exchange, routingKey, body, properties);
}

const oncebox = (schemas: TestSchemas, ...args: string[]): Promise<Ended> =>
  startOncebox(args, { WORKER_DATABASE_URL: schemas.fulfilment.url, AMQP_URL: vhost.amqpUrl }, tmpdir()).ended;

interface Told {
  readonly consumer: string;
  readonly code: string;
  readonly what: string;
  readonly command: string;
}

/** What `oncebox status` says of one consumer. */
async function problemsOf(schemas: TestSchemas, name: string): Promise<Told[]> {
  const { stdout, stderr, code } = await oncebox(schemas, 'status', '--json');
  expect(stdout, stderr).not.toBe('');
  const problems: Told[] = JSON.parse(stdout).problems;
  if (problems.length > 0) expect(code).toBe(1);
  return problems.filter(({ consumer }) => consumer === name);
}
const codesOf = async (name: string): Promise<string[]> => (await problemsOf(ours, name)).map(({ code }) => code);

/** As if it had lasted for an hour. */
const age = (name: string) =>
  Promise.all([
    admin.query(
      `UPDATE consumer_workers SET started_at = started_at - INTERVAL 1 HOUR,
      lease_until = IF(lease_until > UTC_TIMESTAMP(6), lease_until, lease_until - INTERVAL 1 HOUR) WHERE consumer = ?`,
      [name],
    ),
    admin.query('UPDATE consumer_bindings SET unhandled_since = unhandled_since - INTERVAL 1 HOUR WHERE consumer = ?', [
      name,
    ]),
  ]);

const letters = async (pool: Pool, name: string): Promise<string[]> => {
  const [rows] = await pool.query<RowDataPacket[]>('SELECT reason FROM dead_letters WHERE consumer = ?', [name]);
  return rows.map((row) => String(row['reason']));
};
const numbers = (type: string, from: number, to: number): string[] =>
  Array.from({ length: to - from }, (_, index) => `${type} ${from + index}`);

test.each([{ ordered: false }, { ordered: true }])(
  'I1: a second service takes no message of a consumer name that another one has, and says so (ordered: $ordered)',
  async ({ ordered }) => {
    const name = newName();
    const first = await working(name, [Moved], { ordered });
    const second = work(name, [Moved, Sold], { ordered, schemas: theirs });
    await expect.poll(() => second.said.map(({ code }) => code), PATIENCE).toContain('ONCEBOX_CONSUMER_NAME_TAKEN');
    const beside = await working(name, [Moved], { ordered });
    for (let n = 0; n < 10; n++) publish(Moved, n);
    await expect.poll(() => [...first.seen, ...beside.seen], PATIENCE).toHaveLength(10);
    expect(second.seen).toEqual([]);
    expect(second.consumer.consuming).toBe(false);
    expect(await vhost.bindings(name)).not.toContain('thing.Sold');
    const told = await problemsOf(theirs, name);
    expect(told).toMatchObject([{ code: 'ONCEBOX_CONSUMER_NAME_TAKEN', consumer: name }]);
    expect(await problemsOf(ours, name)).toEqual([]);
  },
);

test('I1: a dead letter of the one service is not stored by the other', async () => {
  const name = newName();
  await (await working(name, [Moved])).stop();
  const second = work(name, [Moved], { schemas: theirs });
  await expect.poll(() => second.said.map(({ code }) => code), PATIENCE).toContain('ONCEBOX_CONSUMER_NAME_TAKEN');
  channel.publish('oncebox.events', 'thing.Moved', Buffer.from('{}'), { persistent: true });
  await working(name, [Moved]);
  await expect.poll(() => letters(poolOf(ours), name), PATIENCE).toHaveLength(1);
  expect(await letters(poolOf(theirs), name)).toEqual([]);
});

test('I1: a name that is handed over by the command is consumed by the other service, and not while it is in use', async () => {
  const name = newName();
  const first = await working(name, [Moved]);
  const second = work(name, [Moved], { schemas: theirs });
  await expect.poll(() => second.said.map(({ code }) => code), PATIENCE).toContain('ONCEBOX_CONSUMER_NAME_TAKEN');
  const [problem] = await problemsOf(theirs, name);
  const [, ...command] = problem?.command.split(' ') ?? [];
  expect(await oncebox(theirs, ...command)).toMatchObject({ code: 1, stderr: expect.stringContaining('not taken') });
  await first.stop();
  expect(await oncebox(theirs, ...command)).toMatchObject({ code: 0 });
  await expect.poll(() => second.consumer.consuming, PATIENCE).toBe(true);
  publish(Moved, 1);
  await expect.poll(() => second.seen, PATIENCE).toEqual(['Moved 1']);
  expect(await problemsOf(theirs, name)).toEqual([]);
  const late = work(name, [Moved]);
  await expect.poll(() => late.said.map(({ code }) => code), PATIENCE).toContain('ONCEBOX_CONSUMER_NAME_TAKEN');
});

test('I1: a user who may not mark names consumes, and the log says what is not noticed', async () => {
  const name = newName();
  const url = await vhost.userWith({
    configure: `^(oncebox\\..*|${name}|${name}\\.(dead|retry\\..*))$`,
    write: '.*',
    read: '.*',
  });
  const said: string[] = [];
  const say = (_fields: object, text: string): void => void said.push(text);
  const broker = connectBroker({ urls: [url], name, logger: quiet });
  const handlers = [on(Moved, { handle: async () => undefined })];
  const inbox = createInbox(poolOf(ours), defineConsumer({ name, handlers }));
  const consumer = startConsumer({ broker, inbox, logger: { info: () => undefined, warn: say, error: say } });
  started.push(consumer, { stop: () => broker.close() });
  await expect.poll(() => consumer.consuming, PATIENCE).toBe(true);
  expect(said.join('\n')).toContain('would not be noticed');
});

test.each([
  { ordered: false, one: [Moved], other: [Moved, Sold], sent: Sold, what: 'a type' },
  { ordered: true, one: [Moved], other: [Moved, Sold], sent: Sold, what: 'a type' },
  { ordered: false, one: [Moved], other: [MovedTwice], sent: MovedTwice, what: 'a version' },
  { ordered: true, one: [Moved], other: [MovedTwice], sent: MovedTwice, what: 'a version' },
])(
  'I2: $what that only one of several workers knows is handled there, and none becomes dead (ordered: $ordered)',
  async ({ ordered, one, other, sent }) => {
    const name = newName();
    const old = await Promise.all([1, 2, 3].map(() => working(name, one, { ordered })));
    const next = await working(name, other, { ordered });
    for (let n = 0; n < 60; n++) publish(sent, n);
    for (let n = 100; n < 120; n++) publish(Moved, n);
    const seen = () => [...old, next].flatMap((each) => each.seen).toSorted();
    const expected = [...numbers(sent.type, 0, 60), ...numbers('Moved', 100, 120)].toSorted();
    await expect.poll(seen, PATIENCE).toEqual(expected);
    expect(await letters(poolOf(ours), name)).toEqual([]);
  },
);

test.each([{ ordered: false }, { ordered: true }])(
  'I2: workers that handle different messages for long say so, and so does status, until they do no more (ordered: $ordered)',
  async ({ ordered }) => {
    const name = newName();
    const first = await working(name, [Moved], { ordered });
    const second = await working(name, [Sold], { ordered });
    expect(await codesOf(name)).toEqual([]);
    await age(name);
    const [problem] = await problemsOf(ours, name);
    expect(problem).toMatchObject({ code: 'ONCEBOX_WORKERS_DIFFER' });
    expect(problem?.what).toContain('does not handle Sold v1');
    expect(problem?.what).toContain('does not handle Moved v1');
    for (const { said } of [first, second]) {
      await expect.poll(() => said.map(({ code }) => code), PATIENCE).toContain('ONCEBOX_WORKERS_DIFFER');
    }
    expect((await oncebox(ours, 'consumers', 'list')).stdout).toMatch(new RegExp(`${name}.+consuming +Sold v1`));
    await second.stop();
    expect(await codesOf(name)).toEqual([]);
  },
);

test('I2: a worker that is gone without a word is waited for no longer than its lease', async () => {
  const name = newName();
  await working(name, [Moved]);
  await admin.query(
    `INSERT INTO consumer_workers (consumer, worker, place, definition, refused, lease_until)
     SELECT consumer, UUID(), 'gone:1', REPLACE(definition, 'Moved', 'Sold'), 0, UTC_TIMESTAMP(6) + INTERVAL 3 SECOND
       FROM consumer_workers WHERE consumer = ?`,
    [name],
  );
  await channel.bindQueue(name, 'oncebox.events', 'thing.Sold');
  publish(Sold, 1);
  await expect.poll(() => letters(poolOf(ours), name), PATIENCE).toHaveLength(1);
  const left = async () =>
    (await admin.query<RowDataPacket[]>('SELECT place FROM consumer_workers WHERE consumer = ?', [name]))[0];
  await expect.poll(left, PATIENCE).toHaveLength(1);
});

test.each([{ ordered: false }, { ordered: true }])(
  'I3: a type that is handled no more stays bound until the command that log and status name is run (ordered: $ordered)',
  async ({ ordered }) => {
    const name = newName();
    // Keys that no other test has bound.
    const [Lost, Kept] = [contract(`Lost${ordered}`), contract(`Kept${ordered}`)];
    const old = await working(name, [Moved, Lost, Kept], { ordered });
    const next = await working(name, [Moved, Kept], { ordered });
    await old.stop();
    const rows = async () =>
      (
        await admin.query<RowDataPacket[]>(
          'SELECT type FROM consumer_bindings WHERE consumer = ? AND unhandled_since IS NOT NULL',
          [name],
        )
      )[0].map((row) => row['type']);
    await expect.poll(rows, PATIENCE).toEqual([Lost.type]);
    expect(await codesOf(name)).toEqual([]);
    await age(name);
    const [problem, ...others] = await problemsOf(ours, name);
    expect(others).toEqual([]);
    expect(problem).toMatchObject({ code: 'ONCEBOX_BINDING_UNHANDLED', consumer: name });
    expect(problem?.what).toContain(Lost.routingKey);
    await expect.poll(() => next.said.map(({ code }) => code), PATIENCE).toContain('ONCEBOX_BINDING_UNHANDLED');

    publish(Lost, 1);
    await expect.poll(() => letters(poolOf(ours), name), PATIENCE).toHaveLength(1);
    expect((await letters(poolOf(ours), name))[0]).toMatch(/ONCEBOX_TYPE_REMOVED: .*oncebox consumers unbind/);

    const boundFor = async (key: string): Promise<boolean> => {
      const probe = await vhost.channel();
      const returned = Promise.withResolvers<boolean>();
      probe.on('return', () => returned.resolve(false));
      probe.publish('oncebox.events', key, Buffer.from('{}'), { mandatory: true });
      // A return comes before the answer to what is asked behind it.
      await probe.checkExchange('oncebox.events').then(() => returned.resolve(true));
      return await returned.promise;
    };
    const [, ...command] = problem?.command.split(' ') ?? [];
    expect(await oncebox(ours, 'consumers', 'unbind', name, 'Moved')).toMatchObject({ code: 1 });
    expect(await oncebox(ours, ...command)).toMatchObject({ code: 0 });
    expect(await boundFor(Lost.routingKey)).toBe(false);
    expect(await boundFor(Kept.routingKey)).toBe(true);
    expect(await codesOf(name)).toEqual([]);
  },
);

test('I3: a release that comes back finds its binding and its messages', async () => {
  const name = newName();
  await (await working(name, [Moved, Sold])).stop();
  await (await working(name, [Moved])).stop();
  publish(Sold, 1);
  const back = await working(name, [Moved, Sold]);
  await expect.poll(() => back.seen, PATIENCE).toEqual(['Sold 1']);
  await age(name);
  expect(await codesOf(name)).toEqual([]);
});

test('I3: a type that another live worker handles stays registered, and goes with that worker', async () => {
  const name = newName();
  const old = await working(name, [Moved, Sold]);
  await working(name, [Moved]);
  const types = async () =>
    (await admin.query<RowDataPacket[]>('SELECT type FROM consumers WHERE consumer = ? ORDER BY type', [name]))[0].map(
      (row) => row['type'],
    );
  expect(await types()).toEqual(['Moved', 'Sold']);
  await old.stop();
  await working(name, [Moved]);
  expect(await types()).toEqual(['Moved']);
});

test.each([{ ordered: false }, { ordered: true }])(
  'I4: a consumer without a worker is named with the command that removes what it has left (ordered: $ordered)',
  async ({ ordered }) => {
    const name = newName();
    const worker = await working(name, [Moved], { ordered });
    expect(await oncebox(ours, 'consumers', 'remove', name)).toMatchObject({ code: 1 });
    await worker.stop();
    expect(await codesOf(name)).toEqual([]);
    await age(name);
    const [problem] = await problemsOf(ours, name);
    expect(problem).toMatchObject({ code: 'ONCEBOX_CONSUMER_GONE' });
    const [, ...command] = problem?.command.split(' ') ?? [];
    publish(Moved, 1);
    const queue = ordered ? `${name}.1` : name;
    await expect.poll(() => vhost.depth(queue), PATIENCE).toBe(1);
    expect(await oncebox(ours, ...command)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(`1 in ${queue}`),
    });
    expect(await oncebox(ours, ...command, '--force')).toMatchObject({ code: 0 });
    for (const left of [queue, `${name}.dead`, `${name}.retry.50ms`]) {
      const probe = await vhost.channel();
      await expect(probe.checkQueue(left)).rejects.toThrow(/404/);
    }
    const probe = await vhost.channel();
    await expect(probe.checkExchange(`${name}.owner`)).rejects.toThrow(/404/);
    expect(await codesOf(name)).toEqual([]);
    const status = JSON.parse((await oncebox(ours, 'status', '--json')).stdout);
    expect(status.consumers).not.toContainEqual(expect.objectContaining({ consumer: name }));
  },
);

test('I4: what a service that was refused has left is no reason to delete the queues of the other', async () => {
  const name = newName();
  const first = await working(name, [Moved]);
  const refused = work(name, [Moved], { schemas: theirs });
  await expect.poll(() => refused.said.map(({ code }) => code), PATIENCE).toContain('ONCEBOX_CONSUMER_NAME_TAKEN');
  await refused.stop();
  expect(await problemsOf(theirs, name)).toEqual([]);
  await poolOf(theirs).query('INSERT INTO consumers (consumer, type) VALUES (?, ?)', [name, 'Moved']);
  expect(await oncebox(theirs, 'consumers', 'remove', name, '--force')).toMatchObject({ code: 0 });
  publish(Moved, 1);
  await expect.poll(() => first.seen, PATIENCE).toEqual(['Moved 1']);
});
