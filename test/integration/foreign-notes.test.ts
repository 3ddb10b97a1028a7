import { createInbox, defineConsumer, on } from '@oncebox/inbox';
import { defineRequest, type Inbox } from '@oncebox/message';
import { createRequester, startResponder } from '@oncebox/rabbitmq';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { channel, connect, consume, handled, newName, PATIENCE, quiet, started, vhost } from '../support/consumers.ts';
import { checkedBy, consumeWith, fail, inboxFor, letters, pool, publish } from '../support/dead-letters.ts';
import { connectForeign, type Fields, type Foreign, type Sender, value } from '../support/foreign.ts';

/** Notes of ours and of the broker that somebody else has written. */

let foreign: Sender;
beforeAll(async () => {
  foreign = await connectForeign();
});
afterAll(() => foreign.close());

const version: Fields[number] = ['schemaversion', value.b(1)];
const to = (name: string) => ({ exchange: '', routingKey: name });

test.each<[string, Buffer]>([
  ['huge', value.l(2n ** 62n)],
  ['negative', value.I(-1)],
  ['one', value.I(1)],
  ['text', value.S('many')],
])('E4: an x-delivery-count that is %s keeps no consumer at one message at a time', async (_, count) => {
  const name = newName();
  const all = Promise.withResolvers<void>();
  let inHand = 0;
  const process: Inbox['process'] = async () => {
    if (++inHand === 20) all.resolve();
    await all.promise;
    return handled;
  };
  await consume(name, process);
  for (let i = 0; i < 20; i++) {
    foreign.send(to(name), { messageId: `m${i}`, type: 'T', headers: [version, ['x-delivery-count', count]] });
  }
  await expect
    .poll(() => inHand, PATIENCE)
    .toBe(20)
    .finally(all.resolve);
});

test('E4: an ordered consumer tries at once what comes for the first time, whatever count its sender wrote', async () => {
  const name = newName();
  const seen: string[] = [];
  const handlers = [on(checkedBy(name), { handle: async (_tx, { id }) => void seen.push(id) })];
  const inbox = createInbox(pool, defineConsumer({ name, handlers, retryDelaysMs: [50], ordered: true }));
  const verdicts: string[] = [];
  await consumeWith({
    ...inbox,
    async process(message) {
      const verdict = await inbox.process(message);
      verdicts.push(verdict.kind);
      return verdict;
    },
  });
  const headers: Fields = [version, ['x-delivery-count', value.l(2n ** 62n)]];
  foreign.send(
    { exchange: 'oncebox.events', routingKey: `${name}.checked` },
    { messageId: 'a', type: 'Checked', headers },
  );
  await expect.poll(() => seen, PATIENCE).toEqual(['a']);
  await expect.poll(() => verdicts, PATIENCE).toEqual(['handled']);
});

test.each<[string, Buffer]>([
  ['huge', value.l(2n ** 62n)],
  ['over the ladder', value.I(2)],
  ['negative', value.I(-5)],
  ['a fraction', value.d(0.5)],
  ['text', value.S('1')],
])(
  'E4: a note of attempts that is %s is none: the message has all of its attempts, and no more',
  async (_, attempts) => {
    const name = newName();
    let tries = 0;
    await consumeWith(
      inboxFor(name, async () => {
        tries++;
        await fail();
      }),
    );
    const headers: Fields = [version, ['x-oncebox-attempts', attempts], ['x-oncebox-consumer', value.S(name)]];
    foreign.send(to(name), { messageId: uuidv7(), type: 'Checked', headers });
    await expect.poll(() => letters(name), PATIENCE).toMatchObject([{ attempts: 2, reason: 'OrderError E_ORDER' }]);
    expect(tries).toBe(2);
  },
);

test('E4: notes of somebody else are no part of the record, and a mark of history skips its own message alone', async () => {
  const name = newName();
  const seen: string[] = [];
  await consumeWith(
    inboxFor(name, async ({ id }) => {
      seen.push(id);
      await fail();
    }),
  );
  foreign.send(to(name), { messageId: 'replay', type: 'Checked', headers: [version, ['oncebox-replay', value.V()]] });
  const notes = ['reason', 'error-class', 'first-failure', 'last-failure', 'copy', 'consumer', 'set-aside', 'wrapped'];
  const headers: Fields = [
    version,
    ...notes.map((note): Fields[number] => [`x-oncebox-${note}`, value.F([['x', value.V()]])]),
  ];
  const death = value.A([
    value.F([
      ['queue', value.S(name)],
      ['reason', value.S('expired')],
      ['count', value.l(9n)],
    ]),
  ]);
  foreign.send(to(name), { messageId: 'noted', type: 'Checked', headers: [...headers, ['x-death', death]] });
  await expect.poll(() => letters(name), PATIENCE).toHaveLength(1);
  const [letter] = await letters(name);
  expect(letter).toMatchObject({
    message: 'noted',
    reason: 'OrderError E_ORDER',
    error_class: 'OrderError',
    attempts: 2,
  });
  expect(JSON.parse(letter?.['properties']).headers).toEqual({ schemaversion: 1 });
  expect(Math.abs(Date.now() - letter?.['first_failed_at'])).toBeLessThan(60_000);
  expect(seen).toEqual(['noted', 'noted']);
});

test('E4: two messages that claim to be the same one that was set aside are two dead letters', async () => {
  const name = newName();
  await consumeWith(inboxFor(name, fail));
  const hash = value.S('ab'.repeat(32));
  const headers: Fields = [version, ['x-oncebox-set-aside', hash]];
  for (const messageId of ['one', 'other']) foreign.send(to(name), { messageId, type: 'Checked', headers });
  await expect.poll(async () => (await letters(name)).map(({ message }) => message), PATIENCE).toHaveLength(2);
  expect((await letters(name)).map(({ message }) => message).toSorted()).toEqual(['one', 'other']);
});

test('E4: copies and replays go to no other queue and do not expire, whatever CC, BCC and expiration say', async () => {
  const [name, other] = [newName(), newName()];
  await channel.assertQueue(other, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
  await consumeWith(inboxFor(name, fail));
  const headers: Fields = [version, ['CC', value.A([value.S(other)])], ['BCC', value.A([value.S(other)])]];
  foreign.send(to(name), { messageId: uuidv7(), type: 'Checked', headers, expiration: '3600000' });
  await expect.poll(() => letters(name), PATIENCE).toHaveLength(1);
  await pool.query("UPDATE dead_letters SET state = 'replay' WHERE consumer = ?", [name]);
  await expect.poll(() => letters(name), PATIENCE).toHaveLength(2);
  // What the broker itself has sent there for the two, and nothing of ours.
  expect(await vhost.depth(other)).toBeLessThanOrEqual(2);
  const before = await vhost.depth(other);
  await pool.query("UPDATE dead_letters SET state = 'replay' WHERE consumer = ? AND state = 'dead'", [name]);
  await expect.poll(() => letters(name), PATIENCE).toHaveLength(3);
  expect(await vhost.depth(other)).toBe(before);
});

test('E4: a responder answers to requesters alone, and them meanwhile', async () => {
  const victim = newName();
  await consumeWith(inboxFor(victim, fail));
  const contract = defineRequest({ type: 'Ask', owner: newName(), question: z.any(), answer: z.string() });
  const asked: unknown[] = [];
  const answer = async (question: unknown) => {
    asked.push(question);
    return 'ok';
  };
  const broker = connect('answering');
  const responder = startResponder({ broker, contract, answer, logger: quiet });
  started.push(responder, { stop: () => broker.close() });
  await expect.poll(() => responder.consuming, PATIENCE).toBe(true);
  const requester = createRequester({ urls: [vhost.amqpUrl], name: 'asking', logger: quiet });
  started.push({ stop: () => requester.close() });
  const ask = () => requester.request(contract, 'good', { timeoutMs: 5_000 });
  await expect
    .poll(
      () =>
        ask()
          .then(({ answer: given }) => given)
          .catch(() => undefined),
      PATIENCE,
    )
    .toBe('ok');
  const forged: readonly Foreign[] = [
    { replyTo: victim },
    {},
    { replyTo: 'amq.rabbitmq.reply-to' },
    { replyTo: 'amq.rabbitmq.reply-to.' },
    { replyTo: 'amq.rabbitmq.reply-to.junk' },
    { replyTo: 'amq.rabbitmq.reply-to.junk.junk' },
    { replyTo: `amq.rabbitmq.reply-to.${Buffer.from([131, 100, 0, 1, 97]).toString('base64')}.AAAA` },
    { replyTo: `amq.rabbitmq.reply-to.${Buffer.alloc(60, 131).toString('base64')}.AAAA==` },
  ];
  const before = asked.length;
  for (const given of forged)
    foreign.send(to(contract.queue), { ...given, correlationId: 'c' }, Buffer.from('"forged"'));
  for (let i = 0; i < 10; i++) expect(await ask()).toMatchObject({ answer: 'ok' });
  await expect.poll(() => vhost.depth(contract.queue), PATIENCE).toBe(0);
  expect(asked.slice(before).filter((question) => question === 'good')).toHaveLength(10);
  expect(asked.filter((question) => question === 'forged').length).toBeLessThanOrEqual(3);
  expect(await letters(victim)).toEqual([]);
  const last = publish(victim);
  await expect.poll(async () => (await letters(victim)).map(({ message }) => message), PATIENCE).toEqual([last]);
});
