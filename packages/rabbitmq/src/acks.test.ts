import { type ConsumeMessage, IllegalOperationError } from 'amqplib';
import { expect, test } from 'vitest';
import { openAcks } from './acks.ts';

/** The channel's part in it: what it is told, as `2` for one message and `..2` for all up to it. */
function channelOf(refuse?: Error) {
  const told: string[] = [];
  const tell = (what: string) => {
    if (refuse !== undefined) throw refuse;
    told.push(what);
  };
  const channel = {
    ack: ({ fields }: ConsumeMessage, upTo = false) => tell(`${upTo ? '..' : ''}${fields.deliveryTag}`),
    nack: ({ fields }: ConsumeMessage) => tell(`back ${fields.deliveryTag}`),
    reject: ({ fields }: ConsumeMessage) => tell(`dead ${fields.deliveryTag}`),
  };
  const closing = new AbortController();
  const acks = openAcks('reader', { channel: channel as never, closed: closing.signal }); // no other method of a channel is used
  for (let tag = 1; tag <= 6; tag++) acks.expect(message(tag));
  return { acks, told, closing };
}
const message = (deliveryTag: number): ConsumeMessage => ({ fields: { deliveryTag }, properties: {} }) as never; // all that is read of it
const turn = () => new Promise(setImmediate);

test('what is settled in one turn is one frame up to the oldest that is not, and one for each behind it', async () => {
  const { acks, told } = channelOf();
  for (const tag of [5, 1, 3]) acks.ack(message(tag));
  await turn();
  expect(told.splice(0)).toEqual(['5', '3', '..1']);
  for (const tag of [6, 2, 4]) acks.ack(message(tag));
  await turn();
  expect(told).toEqual(['..6']);
});

test('no frame covers a message that is in hand, though others around it were given up or given back', async () => {
  const { acks, told } = channelOf();
  acks.reject(message(2));
  acks.giveBack(message(3));
  for (const tag of [1, 4, 6]) acks.ack(message(tag));
  await turn();
  expect(told).toEqual(['dead 2', 'back 3', '6', '..4']); // 5 is in hand
});

test('of a channel that is closed, or is being closed, nothing is acknowledged, and nothing fails', async () => {
  const closed = channelOf();
  closed.acks.ack(message(1));
  closed.closing.abort();
  const refusing = channelOf(new IllegalOperationError('Channel closing'));
  refusing.acks.ack(message(1));
  await turn();
  expect([closed.told, refusing.told]).toEqual([[], []]);
});
