import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import type { OutgoingMessage } from '@oncebox/message';
import { createPublisher, type Logger, type Publisher } from '@oncebox/rabbitmq';
import { type Channel, connect as connectBroker } from 'amqplib';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, afterEach, beforeAll, describe, expect, inject, onTestFinished, test } from 'vitest';
import { wireOf } from '../../packages/rabbitmq/src/publish.ts';
import { createVhost, type Vhost } from '../support/vhost.ts';

let vhost: Vhost;
let channel: Channel;
beforeAll(async () => {
  vhost = await createVhost(inject('servers'));
  channel = await vhost.channel();
});
afterAll(() => vhost.drop());

const publishers: Publisher[] = [];
afterEach(async () => {
  await Promise.all(publishers.splice(0).map((publisher) => publisher.close()));
});

const quiet: Logger = { info: () => undefined, warn: () => undefined, error: () => undefined };
const becomesReady = (publisher: Publisher) => expect.poll(() => publisher.ready, { timeout: 20_000 }).toBe(true);

async function readyPublisher(settings: { window?: number; confirmTimeoutMs?: number; name?: string } = {}) {
  const publisher = createPublisher({ urls: [vhost.amqpUrl], name: 'publisher', logger: quiet, ...settings });
  publishers.push(publisher);
  await becomesReady(publisher);
  return publisher;
}

/** A queue bound to its own key, so that the tests of this file do not meet. */
async function boundQueue(settings: Record<string, string | number> = {}): Promise<string> {
  const queue = `q-${uuidv7()}`;
  await channel.assertQueue(queue, { arguments: { 'x-queue-type': 'quorum', ...settings } });
  await channel.bindQueue(queue, 'oncebox.events', queue);
  return queue;
}

/** The broker behind a relay that can fall silent on the connections it has, as a host that vanished does. */
async function brokerThatFreezes(): Promise<{ url: string; freeze: () => void }> {
  const target = new URL(vhost.amqpUrl);
  const open = new Set<Socket>();
  const server = createServer((client) => {
    const broker = connect(Number(target.port), target.hostname);
    for (const socket of [client, broker]) {
      open.add(socket);
      socket.on('error', () => undefined).on('close', () => [client, broker].map((each) => each.destroy()));
    }
    client.pipe(broker).pipe(client);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  onTestFinished(() => {
    for (const socket of open) socket.destroy();
    server.close();
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('No port');
  const url = new URL(target);
  url.hostname = '127.0.0.1';
  url.port = String(address.port);
  return {
    url: url.href,
    freeze: () => {
      for (const socket of open) socket.unpipe().pause();
    },
  };
}

const message = (routingKey: string, given: Partial<OutgoingMessage> = {}): OutgoingMessage => ({
  id: uuidv7(),
  type: 'CustomerCreated',
  version: 1,
  aggregateId: 'c-1',
  payload: '{"b":1,"a":1.0}',
  lineage: {},
  exchange: 'oncebox.events',
  routingKey,
  mandatory: true,
  source: 'shop',
  occurredAt: new Date('2026-01-02T03:04:05.678Z'),
  ...given,
});

describe('outcomes', () => {
  test('a message that a queue has taken is confirmed', async () => {
    const publisher = await readyPublisher();
    const queue = await boundQueue();
    expect(await publisher.publish(message(queue))).toEqual({ kind: 'confirmed' });
    expect(await vhost.depth(queue)).toBe(1);
  });

  test('a message that no queue is bound for is returned, and those around it are confirmed', async () => {
    const publisher = await readyPublisher();
    const queue = await boundQueue();
    const outcomes = await Promise.all([queue, 'nobody', queue].map((key) => publisher.publish(message(key))));
    expect(outcomes).toEqual([
      { kind: 'confirmed' },
      { kind: 'returned', reason: 'no queue is bound to exchange "oncebox.events" for "nobody"' },
      { kind: 'confirmed' },
    ]);
  });

  test('an optional message that no queue is bound for is confirmed', async () => {
    const publisher = await readyPublisher();
    expect(await publisher.publish(message('nobody', { mandatory: false }))).toEqual({ kind: 'confirmed' });
  });

  test('a message that a full queue refuses is nacked', async () => {
    const publisher = await readyPublisher();
    const queue = await boundQueue({ 'x-max-length': 1, 'x-overflow': 'reject-publish' });
    // A quorum queue takes a few more than its limit before it begins to refuse.
    await expect
      .poll(async () => (await publisher.publish(message(queue))).kind, { timeout: 20_000, interval: 10 })
      .toBe('nacked');
  });

  test('a message that cannot be encoded is unsendable, and the next one is confirmed', async () => {
    const publisher = await readyPublisher();
    const queue = await boundQueue();
    const tooLarge = message(queue, { lineage: { traceparent: 'x'.repeat(140_000) } });
    const outcomes = await Promise.all([tooLarge, message(queue)].map((each) => publisher.publish(each)));
    expect(outcomes.map(({ kind }) => kind)).toEqual(['unsendable', 'confirmed']);
    expect(await vhost.depth(queue)).toBe(1);
  });

  test('a message for an exchange that does not exist is returned by name, and stops no other for good', async () => {
    const publisher = await readyPublisher();
    const queue = await boundQueue();
    const lost = message(queue, { exchange: 'no.such.exchange' });
    const [outcome] = await Promise.all([publisher.publish(lost), publisher.publish(message(queue))]);
    expect(outcome).toMatchObject({ kind: 'returned', reason: expect.stringContaining("'no.such.exchange'") });
    await becomesReady(publisher);
    expect(await publisher.publish(message(queue))).toEqual({ kind: 'confirmed' });
  });
});

describe('outages', () => {
  test('what is out when the broker closes the connection is unknown, and the publisher comes back by itself', async () => {
    const publisher = await readyPublisher({ window: 1, name: 'cut' });
    const queue = await boundQueue();
    const kinds: string[] = [];
    let stop = false;
    // One at a time is slow enough that some wait whenever the connection is cut.
    const publishing = (async () => {
      while (!stop) {
        const outcomes = await Promise.all(Array.from({ length: 20 }, () => publisher.publish(message(queue))));
        kinds.push(...outcomes.map(({ kind }) => kind));
        if (kinds.includes('unknown')) break;
      }
    })();
    onTestFinished(() => {
      stop = true;
    });
    await vhost.closeConnections('cut');
    await publishing;
    expect(new Set(kinds)).toEqual(new Set(['confirmed', 'unknown']));
    await becomesReady(publisher);
    expect(await publisher.publish(message(queue))).toEqual({ kind: 'confirmed' });
  });

  test('after its exchange was deleted, the exchange is declared anew, and a message comes back as no queue is bound', async () => {
    const publisher = await readyPublisher();
    await channel.deleteExchange('oncebox.events');
    expect((await publisher.publish(message('x'))).kind).toBe('returned');
    await becomesReady(publisher);
    const queue = await boundQueue();
    expect(await publisher.publish(message(queue))).toEqual({ kind: 'confirmed' });
  });

  test('what is not confirmed in time is unknown, and another connection is made', async () => {
    const { url, freeze } = await brokerThatFreezes();
    const publisher = createPublisher({ urls: [url], name: 'frozen', logger: quiet, confirmTimeoutMs: 500 });
    publishers.push(publisher);
    await becomesReady(publisher);
    const queue = await boundQueue();
    expect(await publisher.publish(message(queue))).toEqual({ kind: 'confirmed' });
    freeze();
    const outcomes = await Promise.all([publisher.publish(message(queue)), publisher.publish(message(queue))]);
    const unconfirmed = { kind: 'unknown', reason: 'no confirm from the broker within 500 ms' };
    expect(outcomes).toEqual([unconfirmed, unconfirmed]);
    await becomesReady(publisher);
    expect(await publisher.publish(message(queue))).toEqual({ kind: 'confirmed' });
  });

  test('a publisher made while its broker is away is not ready, publishes as unknown, and can be closed', async () => {
    const publisher = createPublisher({ urls: ['amqp://u:p@127.0.0.1:1'], name: 'away', logger: quiet });
    expect(publisher.ready).toBe(false);
    expect((await publisher.publish(message('x'))).kind).toBe('unknown');
    await publisher.close();
    expect(publisher.state()).toBe('closed');
  });

  test('the second of two brokers is used when the first is away, and no line of the log shows a password', async () => {
    const lines: string[] = [];
    const keep = (fields: object, text: string): void => void lines.push(JSON.stringify(fields) + text);
    const urls = ['amqp://someone:secret@127.0.0.1:1', vhost.amqpUrl];
    const publisher = createPublisher({ urls, name: 'two', logger: { info: keep, warn: keep, error: keep } });
    publishers.push(publisher);
    await becomesReady(publisher);
    expect(lines.join('\n')).toContain('waiting for broker 127.0.0.1:1: ECONNREFUSED');
    expect(lines.join('\n')).not.toMatch(/secret/);
  });
});

test('more messages than the window and the write buffer hold are all confirmed', async () => {
  const publisher = await readyPublisher({ window: 100 });
  const queue = await boundQueue();
  const payload = JSON.stringify('x'.repeat(10_000));
  const outcomes = await Promise.all(
    Array.from({ length: 2_000 }, () => publisher.publish(message(queue, { payload }))),
  );
  expect(outcomes.filter(({ kind }) => kind === 'confirmed')).toHaveLength(2_000);
  expect(await vhost.depth(queue)).toBe(2_000);
});

test('close waits for the outcome of what is in flight', async () => {
  const publisher = await readyPublisher({ window: 10 });
  const queue = await boundQueue();
  const outcomes = Promise.all(Array.from({ length: 200 }, () => publisher.publish(message(queue))));
  await publisher.close();
  expect(new Set((await outcomes).map(({ kind }) => kind))).toEqual(new Set(['confirmed']));
  expect((await publisher.publish(message(queue))).kind).toBe('unknown');
});

test('every property and header is on the wire, and the body byte for byte', async () => {
  const publisher = await readyPublisher();
  // A quorum queue of RabbitMQ 3.10 adds a header of its own.
  const queue = await boundQueue({ 'x-queue-type': 'classic' });
  const lineage = {
    correlationId: 'corr-1',
    causationId: 'cause-1',
    traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
  };
  const sent = message(queue, { lineage, payload: '{"b":1,"a":1.0,"n":"Zoë"}' });
  await publisher.publish(sent);
  const got = await channel.get(queue, { noAck: true });
  if (got === false) throw new Error('The queue is empty');
  expect(got.content.toString('utf8')).toBe(sent.payload);
  expect(got.fields).toMatchObject({ exchange: 'oncebox.events', routingKey: queue });
  const given = Object.entries(got.properties).filter(([, value]) => value !== undefined);
  expect(Object.fromEntries(given)).toEqual({
    contentType: 'application/json',
    deliveryMode: 2,
    messageId: sent.id,
    type: 'CustomerCreated',
    timestamp: 1_767_323_045,
    correlationId: 'corr-1',
    appId: 'shop',
    headers: {
      'cloudEvents:specversion': '1.0',
      'cloudEvents:id': sent.id,
      'cloudEvents:source': 'shop',
      'cloudEvents:type': 'CustomerCreated',
      'cloudEvents:time': '2026-01-02T03:04:05.678Z',
      'cloudEvents:subject': 'c-1',
      schemaversion: 1,
      traceparent: lineage.traceparent,
      causationid: 'cause-1',
    },
  });
});

test('messages of every size and kind keep their order, and each has its own outcome', async () => {
  const publisher = await readyPublisher();
  const queue = await boundQueue();
  // Within one frame and one chunk, larger than a chunk, and of more than one frame, which amqplib sends; headers that only amqplib encodes.
  const sizes = [20, 3_000, 5_000, 60_000, 70_000, 200_000];
  const sent = Array.from({ length: 300 }, (_, n) => {
    const payload = JSON.stringify({ n, pad: 'é'.repeat((sizes[n % sizes.length] ?? 0) / 2) });
    return message(n % 10 === 3 ? 'nobody.listens' : queue, { payload, version: n % 7 === 0 ? 70_000 : 1 });
  });
  const outcomes = await Promise.all(sent.map((each) => publisher.publish(each)));
  expect(outcomes.map(({ kind }) => kind)).toEqual(sent.map((_, n) => (n % 10 === 3 ? 'returned' : 'confirmed')));
  for (const { id, payload } of sent.filter((_, n) => n % 10 !== 3)) {
    const got = await channel.get(queue, { noAck: true });
    if (got === false) throw new Error('The queue is empty');
    expect(got.properties.messageId).toBe(id);
    expect(got.content.toString('utf8') === payload).toBe(true);
  }
});

test('amqplib still has the part without which publishing is right, and twice as dear', async () => {
  const connection = await connectBroker(vhost.amqpUrl);
  onTestFinished(() => connection.close());
  expect(wireOf(await connection.createConfirmChannel())).toBeDefined();
});
