import { createInbox, defineConsumer, on } from '@oncebox/inbox';
import type { Verdict } from '@oncebox/message';
import type { Channel, GetMessage } from 'amqplib';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { listFor } from '../../packages/rabbitmq/src/bytes.ts';
import { comparable } from '../../packages/rabbitmq/src/property-list.ts';
import { unwrapped } from '../../packages/rabbitmq/src/wrap.ts';
import { connect, consume, newName, OrderError, PATIENCE, started, vhost } from '../support/consumers.ts';
import { checkedBy, consumeWith, fail, inboxFor, letterOf, letters, markAll, pool } from '../support/dead-letters.ts';
import { connectForeign, type Fields, type Foreign, type Sender, value } from '../support/foreign.ts';

/**
 * Copies of other programs' messages: in retry queues, in the dead queue, in the table, and sent
 * again from there.
 */

let foreign: Sender;
let reading: Channel;
let closeReading: () => Promise<void>;
beforeAll(async () => {
  foreign = await connectForeign();
  const broker = connect('reads bytes');
  reading = await (await broker.consuming.connected()).createChannel();
  closeReading = () => broker.close();
});
afterAll(async () => {
  await foreign.close();
  await closeReading();
});

const nested = (depth: number): Buffer => {
  let inner: Buffer = value.V();
  for (let i = 0; i < depth; i++) inner = value.F([['n', value.A([inner])]]);
  return inner;
};
const version: Fields[number] = ['schemaversion', value.b(1)];

/** Each type, and what JavaScript or amqplib makes something else of. */
const EVERYTHING: Fields = [
  version,
  ['text', value.S('Zoë \ud83c\udf89\0')],
  ['no UTF-8', value.S(Buffer.from([0xff, 0x80]))],
  ['bytes', value.x(Buffer.from([0, 255]))],
  ['b', value.b(-128)],
  ['B', value.B(255)],
  ['s', value.s(-1)],
  ['u', value.u(65_535)],
  ['I', value.I(1)],
  ['i', value.i(4_294_967_295)],
  ['l', value.l(-(2n ** 63n))],
  ['T', value.T(2n ** 63n + 3n)],
  ['d', value.d(1)],
  ['-0', value.d(-0)],
  ['f', value.f(0.1)],
  ['D', value.D(2, 4_294_967_295)],
  ['t', value.t(true)],
  ['V', value.V()],
  ['F', value.F([['', value.A([value.l(1n), value.F([])])]])],
  ['!', value.F([['!', value.S('no type')]])],
  ['', value.S('no name')],
  ['__proto__', value.F([['x', value.V()]])],
  ['constructor', value.S('x')],
  ['deep', nested(3_000)],
];
const PROPERTIES: Omit<Foreign, 'headers' | 'messageId'> = {
  contentType: 'application/json',
  contentEncoding: 'identity',
  priority: 3,
  correlationId: 'corr',
  replyTo: 'answers',
  timestamp: 2n ** 60n + 1n,
  type: 'Checked',
  appId: 'foreign',
};

const FIELDS = { consumerTag: '', deliveryTag: 1, redelivered: false, exchange: '', routingKey: '' };

async function read(queue: string): Promise<GetMessage> {
  await expect.poll(() => vhost.depth(queue), PATIENCE).toBeGreaterThan(0);
  const got = await reading.get(queue, { noAck: true });
  if (got === false) throw new Error(`${queue} is empty`);
  return got;
}

/**
 * Properties as bytes, but for the order of the headers (RabbitMQ sorts them when it adds one), the
 * broker's notes and ours.
 */
const comparing = (list: Buffer): Buffer => comparable(list, (header) => !header.startsWith('x-'));
/**
 * What a broker makes of a message that nobody has touched: 4.3 drops one of two headers of a name
 * when it takes it.
 */
async function asDelivered(given: Foreign): Promise<Buffer> {
  const queue = newName();
  await reading.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
  foreign.send({ exchange: '', routingKey: queue }, given);
  return bytesOf(await read(queue));
}
const bytesOf = (message: Pick<GetMessage, 'properties'>): Buffer =>
  comparing(listFor(message.properties) ?? expect.fail());

test.each<[string, Fields]>([
  ['of every type and depth', EVERYTHING],
  ['of a name that is there twice', [version, ['twice', value.I(1)], ['twice', value.I(2)]]],
  ['that fill a frame', [version, ['large', value.S('x'.repeat(130_000))]]],
])('E2: headers %s are byte for byte the same after a retry and in the dead queue', async (_, headers) => {
  const name = newName();
  let attempts = 0;
  const process = async (): Promise<Verdict> => {
    attempts++;
    return { kind: 'retry', error: new OrderError() };
  };
  const consumer = await consume(name, process, { retryDelaysMs: [50, 60] });
  const given = { ...PROPERTIES, messageId: uuidv7(), headers };
  foreign.send({ exchange: '', routingKey: name }, given, Buffer.from('"body"'));
  const dead = unwrapped({ ...(await read(`${name}.dead`)), fields: FIELDS });
  expect(bytesOf(dead)).toEqual(await asDelivered(given));
  expect(dead.content.toString()).toBe('"body"');
  expect(attempts).toBe(3);
  expect(dead.properties.headers).toMatchObject({ 'x-oncebox-attempts': 3, 'x-oncebox-reason': 'OrderError E_ORDER' });
  await consumer.stop();
  expect(await vhost.depth(name)).toBe(0);
});

test.each<[string, Fields]>([
  ['of every type and depth', EVERYTHING],
  ['of a name that is there twice', [version, ['twice', value.I(1)], ['twice', value.I(2)]]],
  ['over 64 KiB of text', [version, ['large', value.S('x'.repeat(70_000))]]],
  ['that fill a frame', [version, ['large', value.S('x'.repeat(130_000))], ['int64', value.l(2n ** 62n + 1n)]]],
])('E2: a dead letter with headers %s is the same after its replay, and is handled', async (_, headers) => {
  const name = newName();
  let cured = false;
  const seen: string[] = [];
  await consumeWith(
    inboxFor(name, async ({ id }) => {
      seen.push(id);
      if (!cured) await fail();
    }),
  );
  const given = { ...PROPERTIES, replyTo: 'q', messageId: uuidv7(), headers };
  foreign.send({ exchange: 'oncebox.events', routingKey: `${name}.checked` }, given, Buffer.from('{"a":1}'));
  const first = await letterOf(name);
  expect(first).toMatchObject({ attempts: 2, reason: 'OrderError E_ORDER', routing_key: `${name}.checked` });
  await markAll(name);
  await expect.poll(() => letters(name), PATIENCE).toHaveLength(2);
  const [, second] = await letters(name);
  expect(second).toMatchObject({ attempts: 2, properties: first['properties'] });
  const { bytes } = JSON.parse(first['properties']);
  if (bytes !== undefined) expect(comparing(Buffer.from(bytes, 'base64'))).toEqual(await asDelivered(given));
  cured = true;
  await pool.query("UPDATE dead_letters SET state = 'replay' WHERE id = ?", [second?.['id']]);
  await expect.poll(() => seen, PATIENCE).toHaveLength(5);
});

test('E2: a dead letter whose properties somebody has edited is sent as they are now, bytes or not', async () => {
  const name = newName();
  let types: unknown[] = [];
  await consumeWith(
    inboxFor(name, async ({ id }) => {
      types = [...types, id];
      await fail();
    }),
  );
  const headers: Fields = [version, ['mine', value.l(2n ** 53n + 1n)]];
  foreign.send(
    { exchange: 'oncebox.events', routingKey: `${name}.checked` },
    { type: 'Checked', messageId: 'before', headers },
  );
  await letterOf(name);
  await pool.query(
    "UPDATE dead_letters SET properties = REPLACE(properties, 'before', 'after'), state = 'replay' WHERE consumer = ?",
    [name],
  );
  await expect.poll(() => letters(name), PATIENCE).toHaveLength(2);
  expect((await letters(name))[1]).toMatchObject({ message: 'after' });
  expect(types).toEqual(['before', 'before', 'after', 'after']);
});

test('E2: an ordered consumer holds a message byte for byte, however large its headers', async () => {
  const name = newName();
  const handlers = [on(checkedBy(name), { handle: async () => await fail() })];
  await consumeWith(
    createInbox(pool, defineConsumer({ name, handlers, retryDelaysMs: [50], ordered: true, whenDead: 'continue' })),
  );
  const headers: Fields = [...EVERYTHING, ['large', value.S('x'.repeat(80_000))]];
  const given = { ...PROPERTIES, messageId: uuidv7(), headers };
  foreign.send({ exchange: 'oncebox.events', routingKey: `${name}.checked` }, given, Buffer.from('{"a":1}'));
  const row = await letterOf(name);
  expect(row).toMatchObject({ attempts: 2, reason: 'OrderError E_ORDER' });
  const bytes = Buffer.from(JSON.parse(row['properties']).bytes, 'base64');
  expect(comparing(bytes)).toEqual(await asDelivered(given));
});

test('E3: what our worker gives up says why, at what and after how many tries, though no copy of it can be sent', async () => {
  const name = newName();
  const broker = connect(name);
  started.push({ stop: () => broker.close() });
  // As where the broker takes smaller messages by now than when it came.
  const refused = async () =>
    ({ kind: 'unsendable', reason: 'message size 1 is larger than configured max size 0' }) as const;
  const inbox = inboxFor(name, fail);
  await consumeWith(inbox, { broker: { ...broker, sender: { ...broker.sender, ready: true, send: refused } } });
  await consumeWith(inboxFor(`${name}-other`, fail));
  foreign.send(
    { exchange: 'oncebox.events', routingKey: `${name}.checked` },
    { messageId: 'one', type: 'Checked', headers: [version] },
  );
  expect(await letterOf(name)).toMatchObject({
    message: 'one',
    reason: `OrderError E_ORDER (no copy of it can be sent to ${name}.retry.50ms: message size 1 is larger than configured max size 0)`,
    error_class: 'OrderError',
    attempts: 1,
  });
  await expect.poll(() => vhost.depth(name), PATIENCE).toBe(0);
});

test('E3: what another client rejects, what expires and what is too much says so, with the queue and the count', async () => {
  const name = newName();
  const setUp = await consumeWith(inboxFor(name, fail));
  await setUp.stop();
  foreign.send({ exchange: '', routingKey: name }, { messageId: 'rejected', type: 'Checked' });
  await foreign.confirmed();
  const got = await reading.get(name);
  if (got === false) throw new Error('nothing to reject');
  reading.nack(got, false, false);
  await expect.poll(() => vhost.depth(`${name}.dead`), PATIENCE).toBe(1);
  foreign.send({ exchange: '', routingKey: name }, { messageId: 'expired', type: 'Checked', expiration: '1' });
  await expect.poll(() => vhost.depth(`${name}.dead`), PATIENCE).toBe(2);
  foreign.send({ exchange: '', routingKey: `${name}.dead` }, { messageId: 'moved', type: 'Checked' });
  await consumeWith(inboxFor(name, fail));
  await expect.poll(() => letters(name), PATIENCE).toHaveLength(3);
  const reasons = Object.fromEntries((await letters(name)).map(({ message, reason }) => [message, reason]));
  expect(reasons).toEqual({
    rejected: expect.stringMatching(`^rejected: a client rejected it from the queue ${name}, 1 time;`),
    expired: expect.stringMatching(`^expired: it expired in the queue ${name}, 1 time:`),
    moved: expect.stringMatching(`^unknown: it came to ${name}.dead without a note`),
  });
});
