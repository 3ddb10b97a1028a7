import { defineMessage } from '@oncebox/message';
import { createPool, type Pool, transaction } from '@oncebox/mysql';
import { createRelay, outbox, type Relay } from '@oncebox/outbox';
import { createPublisher } from '@oncebox/rabbitmq';
import type { Channel, ConsumeMessage } from 'amqplib';
import type { RowDataPacket } from 'mysql2/promise';
import { afterAll, afterEach, beforeAll, beforeEach, expect, inject, vi } from 'vitest';
import { z } from 'zod';
import { createSchemas, type TestSchemas } from './schemas.ts';
import { createVhost, type Vhost } from './vhost.ts';

/** A message whose payload says whose it is and its place in order: `{ walk: 'a', step: 1 }` is `a1`. */
export const Step = defineMessage({
  type: 'Step',
  version: 1,
  aggregateType: 'walk',
  aggregateId: ({ walk }) => walk,
  routingKey: 'walk.step',
  payload: z.strictObject({ walk: z.string(), step: z.int() }),
});
/** The same key, and no queue is bound for it. */
export const Unheard = defineMessage({ ...Step, payload: Step.schema, type: 'Unheard', routingKey: 'walk.unheard' });
export const Whisper = defineMessage({ ...Unheard, payload: Step.schema, type: 'Whisper', delivery: 'optional' });

export const QUEUE = 'seen';
export const PUBLISHER = 'relay under test';
export const quiet = { info() {}, warn() {}, error() {} };

export let schemas: TestSchemas;
export let vhost: Vhost;
export let pool: Pool;
export let admin: Pool;
/** A channel to bind QUEUE with. */
export let channel: Channel;
/** What has come out of QUEUE in this test, in order. */
export let seen: ConsumeMessage[];
let publisher: ReturnType<typeof createPublisher>;
let stopReading: () => Promise<unknown>;
const relays: Relay[] = [];

/** Schemas, a vhost and a publisher for the file; an empty outbox and a queue that is bound for Step for each test. */
export function useRelays(): void {
  beforeAll(async () => {
    [schemas, vhost] = await Promise.all([createSchemas(inject('servers')), createVhost(inject('servers'))]);
    pool = createPool(schemas.shop.url, { connections: 4 });
    admin = createPool(schemas.shop.adminUrl, { connections: 2 });
    publisher = createPublisher({ urls: [vhost.amqpUrl], name: PUBLISHER, logger: quiet });
    await vi.waitFor(() => expect(publisher.ready).toBe(true), { timeout: 20_000 });
  });

  beforeEach(async () => {
    await admin.query('DELETE FROM outbox');
    await admin.query('DELETE FROM outbox_waiting');
    await admin.query('UPDATE outbox_partition SET forgotten_before = NULL');
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
}

/** A relay over `shop`; stopped when the test ends. */
export function newRelay(settings: Partial<Parameters<typeof createRelay>[0]> = {}): Relay {
  const relay = createRelay({
    databaseUrls: schemas.relayUrls.split(',').slice(0, 1),
    publisher,
    logger: quiet,
    ...settings,
  });
  relays.push(relay);
  return relay;
}

/** Passes until one finds nothing. */
export async function drain(relay: Relay): Promise<void> {
  while ((await relay.runOnce()).length > 0);
}

/** Adds to the outbox of `shop`, all in one transaction. */
export const add = (...messages: Parameters<typeof outbox.add>[1][]): Promise<void> =>
  transaction(pool, async (tx) => {
    for (const message of messages) await outbox.add(tx, message);
  });

export async function rows(): Promise<RowDataPacket[]> {
  const [all] = await admin.query<RowDataPacket[]>('SELECT * FROM outbox ORDER BY seq');
  return all;
}

/** `Step1 pending held`, in the order of the rows. */
export const states = async (): Promise<string[]> =>
  (await rows()).map(
    (row) => `${row['type']}${JSON.parse(row['payload']).step} ${row['state']}${row['held'] ? ' held' : ''}`,
  );

/** `a1`, in the order in which they came out of QUEUE. */
export const steps = (): string[] =>
  seen.map(({ content }) => JSON.parse(content.toString())).map(({ walk, step }) => `${walk}${step}`);
