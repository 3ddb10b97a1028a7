import type { OutgoingMessage } from '@oncebox/message';
import { createPublisher, type Logger, type Outcome, type Publisher } from '@oncebox/rabbitmq';
import type { Channel } from 'amqplib';
import fc from 'fast-check';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, expect, inject, onTestFinished, test } from 'vitest';
import type { Sending } from '../../packages/rabbitmq/src/confirms.ts';
import { createSender, type Sender } from '../../packages/rabbitmq/src/sender.ts';
import { superviseConnection } from '../../packages/rabbitmq/src/supervisor.ts';
import { scriptCloses } from '../support/scripted-closes.ts';
import { createVhost, type Vhost } from '../support/vhost.ts';

/**
 * Messages for which the broker closes a channel or a connection: each has its own outcome, and no
 * other message has it.
 */

const LONG = 'x'.repeat(255);
const ALL = { configure: '.*', write: '.*', read: '.*' };

let vhost: Vhost;
let channel: Channel;
let limited: string;
beforeAll(async () => {
  vhost = await createVhost(inject('servers'));
  channel = await vhost.channel();
  await channel.assertExchange('oncebox.events', 'topic', { durable: true });
  await channel.assertExchange('team', 'topic', { durable: true });
  await channel.assertExchange('forbidden', 'topic', { durable: true });
  await channel.assertExchange('inner', 'fanout', { durable: true, internal: true });
  const write = '^(?!forbidden)';
  const topics = { exchange: 'oncebox.events', write: '^(?!secret)', read: '.*' };
  limited = await vhost.userWith({ ...ALL, write }, { topics });
});
afterAll(() => vhost.drop());

const quiet: Logger = { info: () => undefined, warn: () => undefined, error: () => undefined };

async function newSender(url: string, window?: number): Promise<Sender> {
  const supervisor = superviseConnection({ urls: [url], name: 'culprits', logger: quiet });
  const sender = createSender(supervisor, { logger: quiet, ...(window === undefined ? {} : { window }) });
  onTestFinished(async () => {
    await sender.close();
    await supervisor.close();
  });
  await becomesReady(sender);
  return sender;
}

const becomesReady = (one: Pick<Sender, 'ready'>) => expect.poll(() => one.ready, { timeout: 20_000 }).toBe(true);

async function newPublisher(url: string, log?: 'log'): Promise<Publisher> {
  const retention = { maxAgeHours: 1, maxBytes: 1_000_000, segmentBytes: 500_000 };
  const publisher = createPublisher({ urls: [url], name: 'culprits', logger: quiet, ...(log && { log: retention }) });
  onTestFinished(() => publisher.close());
  await becomesReady(publisher);
  return publisher;
}

async function newQueue(settings: object = {}): Promise<string> {
  const queue = `q-${uuidv7()}`;
  await channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum', ...settings } });
  await channel.bindQueue(queue, 'oncebox.events', queue);
  await channel.bindQueue(queue, 'team', queue);
  return queue;
}

const sending = (exchange: string, routingKey: string, given: Partial<Sending> = {}): Sending => ({
  exchange,
  routingKey,
  body: Buffer.from('{}'),
  ...given,
  options: { persistent: true, mandatory: true, messageId: uuidv7(), headers: {}, ...given.options },
});

const message = (exchange: string, routingKey: string): OutgoingMessage => ({
  id: uuidv7(),
  type: 'Noted',
  version: 1,
  aggregateId: 'n-1',
  payload: '{}',
  lineage: {},
  exchange,
  routingKey,
  mandatory: true,
  source: 'shop',
  occurredAt: new Date(),
});

const kindsOf = (outcomes: readonly Outcome[]): string[] => outcomes.map(({ kind }) => kind);
const repeat = <T>(count: number, make: (n: number) => T): T[] => Array.from({ length: count }, (_, n) => make(n));

/** Each kind of message, and what its sender must hear. */
const CASES = {
  good: { expected: /^confirmed$/, of: (good: string) => sending('oncebox.events', good) },
  team: { expected: /^confirmed$/, of: (good: string) => sending('team', good) },
  optional: { expected: /^confirmed$/, of: () => sending('team', 'nobody', { options: { mandatory: false } }) },
  unbound: { expected: /^returned: no queue is bound/, of: () => sending('oncebox.events', 'nobody') },
  unknown: { expected: /^returned: .*no exchange 'no-\d'/, of: (_: string, n: number) => sending(`no-${n % 3}`, 'k') },
  fresh: { expected: /^returned: .*no exchange 'fresh-/, of: () => sending(`fresh-${uuidv7()}`, 'k') },
  quoted: { expected: /^returned: .*no exchange 'it's''/, of: (good: string) => sending("it's'", good) },
  long: { expected: /^returned: .*no exchange 'xxx/, of: (good: string) => sending(LONG, good) },
  forbidden: {
    expected: /^returned: .*exchange 'forbidden'/,
    of: (_: string, n: number) => sending('forbidden', `k${n}`),
  },
  topic: { expected: /^returned: .*topic 'secret'/, of: () => sending('oncebox.events', 'secret') },
  topics: {
    expected: /^returned: .*topic 'secret\.\d+'/,
    of: (_: string, n: number) => sending('oncebox.events', `secret.${n}`),
  },
  longTopic: {
    expected: /^returned: .*topic 'secretxxx/,
    of: () => sending('oncebox.events', `secret${LONG}`.slice(0, 255)),
  },
  inner: {
    expected: /^returned: .*internal exchange 'inner'/,
    of: (_: string, n: number) => sending('inner', `k${n}`),
  },
  // A property with which no broker takes a message, in any exchange.
  property: {
    expected: /^unsendable: .*406/,
    of: (good: string) => sending('oncebox.events', good, { options: { replyTo: 'amq.rabbitmq.reply-to' } }),
  },
  encoding: {
    expected: /^unsendable: /,
    of: (good: string) => sending('oncebox.events', good, { options: { headers: { x: 'x'.repeat(140_000) } } }),
  },
};
type Case = keyof typeof CASES;
const isCase = (name: string): name is Case => name in CASES;
const NAMES = Object.keys(CASES).filter(isCase);

test('G10: in any mix each message has its own outcome, and the messages of a key are first sent in their order', async () => {
  const mix = fc.array(fc.tuple(fc.constantFrom(...NAMES, ...repeat(10, () => 'good' as const)), fc.nat(20)), {
    maxLength: 150,
  });
  await fc.assert(
    fc.asyncProperty(mix, fc.constantFrom(1, 5, 1_000), async (given, window) => {
      const good = await newQueue();
      const sender = await newSender(limited, window);
      const messages = given.map(([name, key], n) => {
        const { of, expected } = CASES[name];
        const made = of(good, n);
        return { name, key, expected, sending: { ...made, body: Buffer.from(JSON.stringify({ key, n })) } };
      });
      const chains = Map.groupBy(messages, ({ key }) => key).values();
      // As a relay sends: one message of a key at a time.
      const heard = await Promise.all(
        chains.map(async (chain) => {
          const lines = [];
          for (const each of chain) {
            const outcome = await sender.send(each.sending);
            const line = outcome.kind === 'confirmed' ? outcome.kind : `${outcome.kind}: ${outcome.reason}`;
            lines.push(each.expected.test(line) ? [] : [`${each.name}: ${line}`]);
          }
          return lines.flat();
        }),
      );
      expect(heard.flat()).toEqual([]);
      await sender.close();
      const seen = await readAll(good);
      const arrived = messages.flatMap(({ name, key }, n) =>
        name === 'good' || name === 'team' ? [`${key} ${n}`] : [],
      );
      expect(seen.toSorted()).toEqual(arrived.toSorted());
      for (const [key, ofKey] of Map.groupBy(seen, (each) => each.split(' ')[0])) {
        expect(ofKey).toEqual(arrived.filter((each) => each.startsWith(`${key} `)));
      }
      await channel.deleteQueue(good);
    }),
    { numRuns: Number(process.env['ONCEBOX_RUNS'] ?? 15) },
  );
}, 300_000);

/** Key and number of what the queue holds, in order and without copies. */
async function readAll(queue: string): Promise<string[]> {
  const seen = new Set<string>();
  for (;;) {
    const got = await channel.get(queue, { noAck: true });
    if (got === false) return [...seen];
    const { key, n } = JSON.parse(got.content.toString());
    seen.add(`${key} ${n}`);
  }
}

test('G7: with many destinations that are refused, each message has its outcome, and the good ones are confirmed', async () => {
  const sender = await newSender(limited);
  const good = await newQueue();
  const messages = repeat(600, (n) => [
    sending('oncebox.events', good),
    ...(n % 3 === 0 ? [sending(`many-${n % 100}`, 'k'), sending('oncebox.events', `secret.${n}`)] : []),
    ...(n % 6 === 0 ? [sending(`fresh-${n}`, 'k')] : []),
  ]).flat();
  const outcomes = await Promise.all(messages.map((each) => sender.send(each)));
  const of = (key: string) => kindsOf(outcomes.filter((_, n) => messages[n]?.routingKey === key));
  expect(of(good)).toEqual(repeat(600, () => 'confirmed'));
  expect(new Set(of('k'))).toEqual(new Set(['returned']));
  expect(of('secret.3')).toEqual(['returned']);
});

test('G1: an exchange that was refused is tried again, and takes all messages once it is there', async () => {
  const sender = await newSender(limited);
  const queue = await newQueue();
  const late = `late-${uuidv7()}`;
  const batch = () => Promise.all(repeat(20, () => sender.send(sending(late, queue))));
  expect(new Set(kindsOf(await batch()))).toEqual(new Set(['returned']));
  await channel.assertExchange(late, 'topic');
  await channel.bindQueue(queue, late, queue);
  await expect.poll(async () => new Set(kindsOf(await batch())), { timeout: 20_000 }).toEqual(new Set(['confirmed']));
});

test('G2: after an exchange was deleted under load its messages are returned, and those of others confirmed', async () => {
  const sender = await newSender(limited);
  const [queue, doomed] = [await newQueue(), `doomed-${uuidv7()}`];
  await channel.assertExchange(doomed, 'topic');
  await channel.bindQueue(queue, doomed, queue);
  const [kept, lost] = [new Set<string>(), new Set<string>()];
  let stop = false;
  const load = (exchange: string, kinds: Set<string>) =>
    repeat(50, async () => {
      while (!stop) kinds.add((await sender.send(sending(exchange, queue))).kind);
    });
  const loads = [...load('oncebox.events', kept), ...load(doomed, lost)];
  await expect.poll(() => [...lost], { interval: 5 }).toEqual(['confirmed']);
  await channel.deleteExchange(doomed);
  await expect.poll(() => [...lost]).toEqual(['confirmed', 'returned']);
  stop = true;
  await Promise.all(loads);
  expect([...kept]).toEqual(['confirmed']);
});

test('G6: with the log, a refused message is kept out of it, and the good ones are kept', async () => {
  const publisher = await newPublisher(vhost.amqpUrl, 'log');
  const queue = await newQueue();
  const messages = repeat(60, (n) => message(n % 3 === 0 ? `no-log-${n % 2}` : 'oncebox.events', queue));
  const outcomes = await Promise.all(messages.map((each) => publisher.publish(each)));
  expect(kindsOf(outcomes)).toEqual(repeat(60, (n) => (n % 3 === 0 ? 'returned' : 'confirmed')));
  expect((await channel.checkQueue(queue)).messageCount).toBe(40);
});

test('G8: with one channel for each user, the culprit is found and the others are confirmed', async () => {
  const sender = await newSender(await vhost.userWith(ALL, { maxChannels: 1 }));
  const queue = await newQueue();
  const batch = async () => {
    await becomesReady(sender);
    const sent = repeat(30, (n) => sender.send(n === 15 ? sending('no-such', 'k') : sending('oncebox.events', queue)));
    return kindsOf(await Promise.all(sent));
  };
  const expected = repeat(30, (n) => (n === 15 ? 'returned' : 'confirmed'));
  await expect.poll(batch, { timeout: 30_000 }).toEqual(expected);
  expect(await batch()).toEqual(expected);
  await channel.assertExchange('no-such', 'topic');
  await channel.bindQueue(queue, 'no-such', 'k');
  const all = repeat(30, () => 'confirmed');
  await expect.poll(batch, { timeout: 30_000 }).toEqual(all);
});

test('G9: a message for which the broker closes the connection is found, and stops the others no longer', async () => {
  const broker = await scriptCloses(vhost.amqpUrl, 'unbearable', 541);
  const sender = await newSender(broker.url);
  const queue = await newQueue();
  const bad = sending('oncebox.events', queue, { body: Buffer.from('unbearable') });
  const good = repeat(30, () => sending('oncebox.events', queue));
  const batch = async () => {
    await becomesReady(sender);
    return kindsOf(await Promise.all([...good.slice(0, 15), bad, ...good.slice(15)].map((each) => sender.send(each))));
  };
  const expected = repeat(31, (n) => (n === 15 ? 'returned' : 'confirmed'));
  await expect.poll(batch, { timeout: 30_000 }).toEqual(expected);
  const { closed } = broker;
  expect(await batch()).toEqual(expected); // on a connection of its own
  expect(broker.closed).toBe(closed + 1);
});

test('G9: what is tried when the connection is lost is unknown, and the sender comes back', async () => {
  const sender = await newSender(limited);
  const queue = await newQueue();
  const outcomes = repeat(40, (n) => sender.send(sending(n % 2 === 0 ? `lost-${n}` : 'oncebox.events', queue)));
  await vhost.closeConnections('culprits');
  for (const { kind } of await Promise.all(outcomes)) expect(['confirmed', 'returned', 'unknown']).toContain(kind);
  await becomesReady(sender);
  expect((await sender.send(sending('oncebox.events', queue))).kind).toBe('confirmed');
});

test('G10: close waits for the outcome of what is tried apart', async () => {
  const sender = await newSender(limited);
  const queue = await newQueue();
  const sent = repeat(100, (n) => sender.send(sending('oncebox.events', n % 10 === 0 ? `secret.${n}` : queue)));
  await sender.close();
  expect(kindsOf(await Promise.all(sent))).toEqual(repeat(100, (n) => (n % 10 === 0 ? 'returned' : 'confirmed')));
});
