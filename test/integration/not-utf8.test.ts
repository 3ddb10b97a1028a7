import { createHash } from 'node:crypto';
import { createInbox, defineConsumer, on } from '@oncebox/inbox';
import { defineRequest, type Inbox } from '@oncebox/message';
import { startResponder } from '@oncebox/rabbitmq';
import type { ConfirmChannel, ConsumeMessage } from 'amqplib';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { END_MARK, encodeHead } from '../../packages/rabbitmq/src/frames.ts';
import { wireOf } from '../../packages/rabbitmq/src/publish.ts';
import { channel, connect, newName, PATIENCE, quiet, started, vhost } from '../support/consumers.ts';
import { checkedBy, consumeWith, inboxFor, letters, pool, publish } from '../support/dead-letters.ts';

/**
 * Bytes that are no UTF-8, on a real broker: dead with a reason, each message for itself, and its
 * body as it came.
 */

let raw: ConfirmChannel;
let closeRaw: () => Promise<void>;
beforeAll(async () => {
  const broker = connect('sends bytes');
  const connection = await broker.consuming.connected();
  raw = await connection.createConfirmChannel();
  closeRaw = () => broker.close();
});
afterAll(() => closeRaw());

/**
 * By frames of our own, because amqplib would encode the names as UTF-8: `latin1` stands for bytes.
 */
function sendBytes(
  to: { readonly exchange: string; readonly routingKey: string },
  latin1: { readonly messageId: string; readonly type?: string; readonly subject?: string },
  body: Buffer = Buffer.from('{}'),
): void {
  const wire = wireOf(raw) ?? expect.fail();
  const { messageId, type = 'Checked', subject = 'x' } = latin1;
  // The encoder counts UTF-8, so what stands for the bytes meanwhile is ASCII of the same length.
  const places = {
    messageId: 'I'.repeat(messageId.length),
    type: 'T'.repeat(type.length),
    subject: 'S'.repeat(subject.length),
  };
  const headers = { schemaversion: 1, 'cloudEvents:subject': places.subject };
  const options = { messageId: places.messageId, type: places.type, persistent: true, headers };
  const head = encodeHead(wire, { ...to, body, options }) ?? expect.fail();
  const bytes = head
    .replace(`${String.fromCharCode(messageId.length)}${places.messageId}`, (at) => at[0] + messageId)
    .replace(`${String.fromCharCode(type.length)}${places.type}`, (at) => at[0] + type)
    .replace(`${String.fromCharCode(subject.length)}${places.subject}`, (at) => at[0] + subject);
  wire.stream.write(Buffer.concat([Buffer.from(bytes, 'latin1'), body, Buffer.from([END_MARK])]));
}

const handledIds: string[] = [];
const note = async ({ id }: { readonly id: string }): Promise<void> => void handledIds.push(id);

/** Of the same contract as `inboxFor`'s. */
function orderedInbox(name: string): Inbox {
  const handlers = [on(checkedBy(name), { handle: (_tx, message) => note(message) })];
  return createInbox(pool, defineConsumer({ name, handlers, retryDelaysMs: [50], ordered: true }));
}

test.each([
  ['an unordered consumer', (name: string) => inboxFor(name, note)],
  ['an ordered consumer', orderedInbox],
])('D2: %s gives up what is not UTF-8, each message for itself, and handles the next one', async (_, inboxOf) => {
  const name = newName();
  await consumeWith(inboxOf(name));
  const to = { exchange: 'oncebox.events', routingKey: `${name}.checked` };
  const latin1 = Buffer.from('{"name":"Zoë"}', 'latin1');
  sendBytes(to, { messageId: '\x80a' });
  sendBytes(to, { messageId: '\x81a' });
  sendBytes(to, { messageId: 'type', type: 'Check\xe9' });
  sendBytes(to, { messageId: 'key', subject: 'Zo\xeb' });
  sendBytes(to, { messageId: 'body' }, latin1);
  const good = publish(name);
  await expect.poll(() => handledIds, PATIENCE).toContain(good);
  await expect.poll(() => letters(name), PATIENCE).toHaveLength(5);
  const found = (await letters(name)).map(({ message, reason, body, attempts }) => ({
    message,
    reason,
    body,
    attempts,
  }));
  const given = (message: string, reason: string, body = Buffer.from('{}')) => ({
    message,
    reason: expect.stringMatching(`^MessageError ONCEBOX_MALFORMED_MESSAGE: The ${reason} is not UTF-8`),
    body,
    attempts: 1,
  });
  expect(found).toHaveLength(5);
  expect(found).toEqual(
    expect.arrayContaining([
      given('\ufffda', 'messageId'),
      given('type', 'type'),
      given('key', 'cloudEvents:subject'),
      given('body', 'body', latin1),
    ]),
  );
  expect(found.filter(({ message }) => message === '\ufffda')).toHaveLength(2);
  expect(handledIds).not.toContain('\ufffda');
});

test('D2: two copies that the broker moved by itself, alike in all but such bytes, are two dead letters', async () => {
  const name = newName();
  await consumeWith(inboxFor(name, note));
  for (const messageId of ['\x80a', '\x81a']) sendBytes({ exchange: '', routingKey: `${name}.dead` }, { messageId });
  await expect.poll(() => letters(name), PATIENCE).toHaveLength(2);
});

test('D2: a question that is not UTF-8 is not answered, and its requester learns so', async () => {
  const contract = defineRequest({ type: 'Spell', owner: newName(), question: z.any(), answer: z.string() });
  const asked: unknown[] = [];
  const answer = async (question: unknown) => {
    asked.push(question);
    return 'ok';
  };
  const broker = connect('answering');
  const responder = startResponder({ broker, contract, answer, logger: quiet });
  started.push(responder, { stop: () => broker.close() });
  await expect.poll(() => responder.consuming, PATIENCE).toBe(true);
  const replyTo = 'amq.rabbitmq.reply-to';
  const replies: ConsumeMessage[] = [];
  await channel.consume(replyTo, (message) => void (message && replies.push(message)), { noAck: true });
  for (const encoding of ['latin1', 'utf8'] as const) {
    channel.publish('', contract.queue, Buffer.from('"Zoë"', encoding), { replyTo, correlationId: encoding });
  }
  await expect.poll(() => replies, PATIENCE).toHaveLength(2);
  const failed = replies.map(({ properties }) => [properties.correlationId, properties.headers?.['failed']]);
  expect(failed).toEqual(
    expect.arrayContaining([
      ['latin1', true],
      ['utf8', undefined],
    ]),
  );
  expect(asked).toEqual(['Zoë']);
  expect(await vhost.depth(contract.queue)).toBe(0);
});

test('D2: a replay of what is still not UTF-8 makes it a dead letter again, with the same bytes', async () => {
  const name = newName();
  const latin1 = Buffer.from('"Zoë"', 'latin1');
  const hash = (body: Buffer) => createHash('sha256').update(body).digest('hex');
  await consumeWith(inboxFor(name, note));
  sendBytes({ exchange: 'oncebox.events', routingKey: `${name}.checked` }, { messageId: 'again' }, latin1);
  await expect.poll(() => letters(name), PATIENCE).toHaveLength(1);
  await pool.query("UPDATE dead_letters SET state = 'replay' WHERE consumer = ?", [name]);
  await expect.poll(() => letters(name), PATIENCE).toHaveLength(2);
  expect((await letters(name)).map(({ state, body, reason }) => [state, hash(body), reason])).toEqual([
    ['replayed', hash(latin1), expect.stringContaining('not UTF-8')],
    ['dead', hash(latin1), expect.stringContaining('not UTF-8')],
  ]);
});
