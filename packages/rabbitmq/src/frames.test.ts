import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import type { Sending } from './confirms.ts';
import { END_MARK, encodeHead } from './frames.ts';

const require = createRequire(import.meta.url);
/** amqplib's own encoders, which it neither exports nor types. */
const defs: {
  readonly BasicPublish: number;
  readonly BasicProperties: number;
  encodeMethod(id: number, channel: number, fields: object): Buffer;
  encodeProperties(id: number, channel: number, bytes: number, fields: object): Buffer;
} = require(join(dirname(require.resolve('amqplib')), 'lib/defs.js'));

const sending: Sending = {
  exchange: 'oncebox.events',
  routingKey: 'customer.created',
  body: Buffer.from('{"name":"Ada"}'),
  options: {
    persistent: true,
    mandatory: true,
    messageId: '0190b2c8-7a3e-7cc1-8a5c-1f2e3d4c5b6a',
    type: 'CustomerCreated',
    contentType: 'application/json',
    timestamp: 1_767_323_045,
    appId: 'shop',
    correlationId: 'corr-1',
    headers: { 'cloudEvents:id': '0190b2c8', 'cloudEvents:subject': 'c-1', schemaversion: 1 },
  },
};
const { correlationId: _, ...rest } = sending.options;
const withoutCorrelationId: Sending = { ...sending, options: rest };
const withOptions = (options: Sending['options']): Sending => ({
  ...sending,
  options: { ...sending.options, ...options },
});

/** What amqplib writes of it on that channel. */
function byAmqplib(channel: number, { exchange, routingKey, body, options }: Sending): Buffer {
  const fields = { ...options, exchange, routingKey, immediate: false, deliveryMode: 2 };
  const size = Buffer.alloc(4);
  size.writeUInt32BE(body.length);
  return Buffer.concat([
    defs.encodeMethod(defs.BasicPublish, channel, fields),
    defs.encodeProperties(defs.BasicProperties, channel, body.length, fields),
    Buffer.from([3, channel >> 8, channel & 255, ...size]),
    body,
    Buffer.from([END_MARK]),
  ]);
}

const ours = (channel: number, message: Sending): Buffer =>
  Buffer.concat([
    Buffer.from(encodeHead({ channel, frameMax: 4_096 }, message) ?? '', 'latin1'),
    message.body,
    Buffer.from([END_MARK]),
  ]);

test.each<[string, Sending]>([
  ['a message of the relay', sending],
  ['one that is not mandatory', withOptions({ mandatory: false })],
  ['one without a correlation id', withoutCorrelationId],
  [
    'text that is not ASCII',
    { ...withOptions({ headers: { 'cloudEvents:subject': 'Zoë 王 🎉' } }), routingKey: 'kündê' },
  ],
  [
    'text of the lengths at which its length takes other bytes',
    withOptions({ headers: { a: 'x'.repeat(300), b: '' } }),
  ],
  ['integers of one byte and of two', withOptions({ headers: { a: 0, b: 127, c: 128, d: 32_767 } })],
  ['a header that is not set', withOptions({ headers: { a: undefined, b: 'x' } })],
  ['no headers', withOptions({ headers: {} })],
  ['empty texts and no time', withOptions({ type: '', appId: '', timestamp: 0 })],
  ['a body that just fits a frame', { ...sending, body: Buffer.alloc(4_088, 'x') }],
  ['names of 255 bytes', { ...withOptions({ type: 'ä'.repeat(127) }), exchange: 'e'.repeat(255) }],
])('writes %s with the bytes of amqplib', (_what, message) => {
  expect(ours(1, message)).toEqual(byAmqplib(1, message));
  expect(ours(2_047, message)).toEqual(byAmqplib(2_047, message));
});

test.each<[string, Sending]>([
  ['a property that it does not know', withOptions({ replyTo: 'q' })],
  ['a message that is not persistent', withOptions({ persistent: false })],
  ['headers that are neither text nor small integers', withOptions({ headers: { 'x-death': [{ count: 1 }] } })],
  ['a negative integer', withOptions({ headers: { a: -1 } })],
  ['a fraction', withOptions({ headers: { a: 0.5 } })],
  ['a larger integer', withOptions({ headers: { a: 32_768 } })],
  ['a name of 256 bytes', withOptions({ type: 'ä'.repeat(128) })],
  ['a time before 1970', withOptions({ timestamp: -1 })],
  ['headers that fill a frame', withOptions({ headers: { a: 'x'.repeat(4_000) } })],
  ['an empty body, which has no frame', { ...sending, body: Buffer.alloc(0) }],
  ['a body that may need two frames', { ...sending, body: Buffer.alloc(4_089) }],
])('leaves %s to amqplib', (_what, message) => {
  expect(encodeHead({ channel: 1, frameMax: 4_096 }, message)).toBeUndefined();
});
