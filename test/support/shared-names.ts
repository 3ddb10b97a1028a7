import { tmpdir } from 'node:os';
import { createInbox, defineConsumer, on } from '@oncebox/inbox';
import { defineMessage, nextVersion, toWire } from '@oncebox/message';
import { createPool, type Pool } from '@oncebox/mysql';
import { type Consumer, connectBroker, startConsumer } from '@oncebox/rabbitmq';
import type { Channel } from 'amqplib';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, afterEach, beforeAll, expect, inject } from 'vitest';
import { z } from 'zod';
import { type Ended, startOncebox } from './oncebox.ts';
import { createSchemas, type TestSchemas } from './schemas.ts';
import { createVhost, type Vhost } from './vhost.ts';

/** What the tests of shared names have in common; each file that imports it has schemas and a vhost of its own. */

export const PATIENCE = { timeout: 60_000, interval: 50 };
export const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined };

export let vhost: Vhost;
export let channel: Channel;
export let ours: TestSchemas;
export let theirs: TestSchemas;
/** As the administrator. */
export let admin: Pool;
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

export const started: { stop(): Promise<unknown> }[] = [];
afterEach(async () => {
  for (const each of started.splice(0)) await each.stop();
});

export function poolOf({ fulfilment: { url } }: TestSchemas): Pool {
  const pool = pools.get(url) ?? createPool(url, { connections: 20 });
  pools.set(url, pool);
  return pool;
}

const payload = z.strictObject({ n: z.int() });
export const contract = (type: string) =>
  defineMessage({
    type,
    version: 1,
    aggregateType: 'thing',
    aggregateId: ({ n }) => `${n}`,
    routingKey: `thing.${type}`,
    payload,
  });
export const [Moved, Sold] = [contract('Moved'), contract('Sold')];
export const MovedTwice = nextVersion(Moved, { payload, aggregateId: ({ n }) => `${n}`, upcast: (earlier) => earlier });
export type Any = typeof Moved;

export const newName = () => `shared-${uuidv7()}`;

export interface Worker {
  readonly consumer: Consumer;
  readonly seen: string[];
  readonly said: { readonly code: unknown; readonly text: string }[];
  stop(): Promise<void>;
}

/** One worker of a release that handles these. */
export function work(
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

export async function working(...given: Parameters<typeof work>): Promise<Worker> {
  const worker = work(...given);
  await expect.poll(() => worker.consumer.consuming, PATIENCE).toBe(true);
  return worker;
}

export function publish({ exchange, routingKey, type, version }: Any, n: number): void {
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

export const oncebox = (schemas: TestSchemas, ...args: string[]): Promise<Ended> =>
  startOncebox(args, { WORKER_DATABASE_URL: schemas.fulfilment.url, AMQP_URL: vhost.amqpUrl }, tmpdir()).ended;

interface Told {
  readonly consumer: string;
  readonly code: string;
  readonly what: string;
  readonly command: string;
}

/** What `oncebox status` says of one consumer. */
export async function problemsOf(schemas: TestSchemas, name: string): Promise<Told[]> {
  const { stdout, stderr, code } = await oncebox(schemas, 'status', '--json');
  expect(stdout, stderr).not.toBe('');
  const problems: Told[] = JSON.parse(stdout).problems;
  if (problems.length > 0) expect(code).toBe(1);
  return problems.filter(({ consumer }) => consumer === name);
}
export const codesOf = async (name: string): Promise<string[]> =>
  (await problemsOf(ours, name)).map(({ code }) => code);

/** As if it had lasted for an hour. */
export const age = (name: string) =>
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

export const letters = async (pool: Pool, name: string): Promise<string[]> => {
  const [rows] = await pool.query<RowDataPacket[]>('SELECT reason FROM dead_letters WHERE consumer = ?', [name]);
  return rows.map((row) => String(row['reason']));
};
export const numbers = (type: string, from: number, to: number): string[] =>
  Array.from({ length: to - from }, (_, index) => `${type} ${from + index}`);
