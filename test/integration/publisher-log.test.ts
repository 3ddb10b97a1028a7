import { LOG, type OutgoingMessage } from '@oncebox/message';
import { createPublisher, type Logger, type Publisher } from '@oncebox/rabbitmq';
import type { Channel } from 'amqplib';
import { v7 as uuidv7 } from 'uuid';
import { afterEach, beforeEach, expect, inject, test } from 'vitest';
import { readStream } from '../support/streams.ts';
import { createVhost, type Vhost } from '../support/vhost.ts';

const PATIENCE = { timeout: 20_000, interval: 20 };
const QUEUE = 'hearer';

let vhost: Vhost;
let channel: Channel;
let publisher: Publisher;
const complaints: string[] = [];
beforeEach(async () => {
  complaints.length = 0;
  vhost = await createVhost(inject('servers'));
  channel = await vhost.channel();
  await channel.assertQueue(QUEUE, { arguments: { 'x-queue-type': 'quorum' } });
});
afterEach(async () => {
  await publisher.close();
  await vhost.drop();
});

async function start(url = vhost.amqpUrl): Promise<void> {
  const logger: Logger = {
    info: () => undefined,
    warn: (_fields, text) => void complaints.push(`warn: ${text}`),
    error: (_fields, text) => void complaints.push(`error: ${text}`),
  };
  const log = { maxAgeHours: 1, maxBytes: 10_000_000, segmentBytes: 1_000_000 };
  publisher = createPublisher({ urls: [url], name: 'publisher', logger, log });
  await expect.poll(() => publisher.ready, PATIENCE).toBe(true);
}

const message = (): OutgoingMessage => ({
  id: uuidv7(),
  type: 'CustomerCreated',
  version: 1,
  aggregateId: 'Zoë',
  partition: 7,
  payload: '{"b":1,"a":1.0,"n":"Zoë"}',
  lineage: { correlationId: 'corr-1' },
  exchange: 'oncebox.events',
  routingKey: 'customer.created',
  mandatory: true,
  source: 'shop',
  occurredAt: new Date('2026-01-02T03:04:05.678Z'),
});

test('a message that no queue is bound for still comes back, and is kept in the log once it is announced', async () => {
  await start();
  const unheard = message();
  expect(await publisher.publish(unheard)).toMatchObject({ kind: 'returned' });
  await channel.bindQueue(QUEUE, 'oncebox.events', 'customer.created');
  expect(await publisher.publish(unheard)).toEqual({ kind: 'confirmed' });

  const [kept, ...others] = await readStream(channel, LOG);
  expect(others).toEqual([]);
  const announced = await channel.get(QUEUE, { noAck: true });
  if (announced === false) throw new Error('It was not announced');
  expect(kept?.content.toString()).toBe(unheard.payload);
  const { headers, ...properties } = announced.properties;
  delete headers?.['x-delivery-count']; // RabbitMQ 3.10's quorum queues add it
  expect(kept?.properties).toMatchObject({
    ...properties,
    headers: { ...headers, 'x-oncebox-routing-key': 'customer.created' },
  });
});

test('closing waits until what is in flight is in the log as well', async () => {
  await start();
  await channel.bindQueue(QUEUE, 'oncebox.events', 'customer.created');
  const inFlight = Array.from({ length: 20 }, () => publisher.publish(message()));
  await publisher.close();
  expect(new Set((await Promise.all(inFlight)).map(({ kind }) => kind))).toEqual(new Set(['confirmed']));
});

test('while the log is gone a publish fails, with a reason that names it, and a new one is declared', async () => {
  await start();
  await channel.bindQueue(QUEUE, 'oncebox.events', 'customer.created');
  await channel.deleteQueue(LOG);
  const outcome = await publisher.publish(message());
  expect(outcome).toMatchObject({
    kind: 'returned',
    reason: expect.stringContaining('not kept in the log: no queue is bound'),
  });
  const next = message();
  await expect.poll(async () => (await publisher.publish(next)).kind, PATIENCE).toBe('confirmed');
  expect((await readStream(channel, LOG)).map(({ properties }) => properties.messageId)).toContain(next.id);
});

test('a log that is there with other properties is used and complained of, and a publish that it refuses fails', async () => {
  await channel.assertQueue(LOG, {
    arguments: { 'x-queue-type': 'classic', 'x-max-length': 1, 'x-overflow': 'reject-publish' },
  });
  await start();
  await channel.bindQueue(QUEUE, 'oncebox.events', 'customer.created');
  expect(complaints).toEqual([expect.stringMatching(/^warn: .* is used as it is.* Deleting it deletes the history/)]);
  expect(await publisher.publish(message())).toEqual({ kind: 'confirmed' });
  expect(await publisher.publish(message())).toMatchObject({ kind: 'nacked', reason: expect.stringContaining('log') });
});

test('a publish of one who may not send to the log fails, and says which right is missing', async () => {
  const everythingElse = { configure: '.*', read: '.*', write: '^oncebox\\.' };
  await start(await vhost.userWith(everythingElse));
  await channel.bindQueue(QUEUE, 'oncebox.events', 'customer.created');
  const outcome = await publisher.publish(message());
  expect(outcome).toMatchObject({ kind: 'returned', reason: expect.stringContaining("'amq.default'") });
});
