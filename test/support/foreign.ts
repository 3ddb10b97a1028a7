import type { ConfirmChannel } from 'amqplib';
import { expect } from 'vitest';
import { wireOf } from '../../packages/rabbitmq/src/publish.ts';
import { connect } from './consumers.ts';

/**
 * Messages as other programs send them: every type of AMQP's field tables, properties that amqplib
 * does not write, and headers up to a frame's size. The encoder is the tests' own, so that it
 * cannot agree with that of the packages by mistake.
 */

const tagged = (tag: string, bytes: number, write: (value: Buffer) => void): Buffer => {
  const value = Buffer.alloc(1 + bytes);
  value.write(tag, 'latin1');
  write(value.subarray(1));
  return value;
};
const long = (tag: string, content: Buffer): Buffer => {
  const size = Buffer.alloc(4);
  size.writeUInt32BE(content.length);
  return Buffer.concat([Buffer.from(tag, 'latin1'), size, content]);
};

/** Values of a field table, by their tags. */
export const value = {
  S: (text: string | Buffer) => long('S', Buffer.from(text)),
  x: (bytes: Buffer) => long('x', bytes),
  b: (n: number) => tagged('b', 1, (to) => to.writeInt8(n)),
  B: (n: number) => tagged('B', 1, (to) => to.writeUInt8(n)),
  s: (n: number) => tagged('s', 2, (to) => to.writeInt16BE(n)),
  u: (n: number) => tagged('u', 2, (to) => to.writeUInt16BE(n)),
  I: (n: number) => tagged('I', 4, (to) => to.writeInt32BE(n)),
  i: (n: number) => tagged('i', 4, (to) => to.writeUInt32BE(n)),
  l: (n: bigint) => tagged('l', 8, (to) => to.writeBigInt64BE(n)),
  T: (n: bigint) => tagged('T', 8, (to) => to.writeBigUInt64BE(n)),
  d: (n: number) => tagged('d', 8, (to) => to.writeDoubleBE(n)),
  f: (n: number) => tagged('f', 4, (to) => to.writeFloatBE(n)),
  D: (places: number, digits: number) =>
    tagged('D', 5, (to) => {
      to.writeUInt8(places);
      to.writeUInt32BE(digits, 1);
    }),
  t: (on: boolean) => tagged('t', 1, (to) => to.writeUInt8(on ? 1 : 0)),
  V: () => Buffer.from('V'),
  F: (fields: Fields) => long('F', tableOf(fields)),
  A: (values: readonly Buffer[]) => long('A', Buffer.concat(values)),
};

/**
 * An array in an array in an array …: its bytes are written at once, or many depths would take
 * long.
 */
export function nestedArrays(depth: number): Buffer {
  const bytes = Buffer.alloc(5 * depth + 1);
  for (let at = 0; at < depth; at++) {
    bytes.write('A', 5 * at);
    bytes.writeUInt32BE(bytes.length - 5 * (at + 1), 5 * at + 1);
  }
  bytes.write('V', 5 * depth);
  return bytes;
}

/** Names and values, in their order; a name may be there twice, and may be empty. */
export type Fields = readonly (readonly [name: string | Buffer, value: Buffer])[];

export const tableOf = (fields: Fields): Buffer =>
  Buffer.concat(fields.flatMap(([name, field]) => [short(name), field]));

function short(text: string | Buffer): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([Buffer.from([bytes.length]), bytes]);
}

/** AMQP's basic properties, those that are given. */
export interface Foreign {
  readonly contentType?: string;
  readonly contentEncoding?: string;
  readonly headers?: Fields;
  readonly priority?: number;
  readonly correlationId?: string;
  readonly replyTo?: string;
  readonly expiration?: string;
  readonly messageId?: string | Buffer;
  readonly timestamp?: bigint;
  readonly type?: string | Buffer;
  readonly appId?: string;
}

export function propertiesOf(given: Foreign): Buffer {
  const octet = (n: number) => Buffer.from([n]);
  const texted = (text: string | Buffer | undefined) => (text === undefined ? undefined : short(text));
  const { headers, priority, timestamp } = given;
  // In the order of their flags, from the highest bit on.
  const parts: readonly (Buffer | undefined)[] = [
    texted(given.contentType),
    texted(given.contentEncoding),
    headers && value.F(headers).subarray(1),
    octet(2), // persistent
    priority === undefined ? undefined : octet(priority),
    texted(given.correlationId),
    texted(given.replyTo),
    texted(given.expiration),
    texted(given.messageId),
    timestamp === undefined ? undefined : value.T(timestamp).subarray(1),
    texted(given.type),
    undefined,
    texted(given.appId),
  ];
  const flags = Buffer.alloc(2);
  flags.writeUInt16BE(parts.reduce((bits, part, at) => (part === undefined ? bits : bits | (0x8000 >> at)), 0));
  return Buffer.concat([flags, ...parts.filter((part) => part !== undefined)]);
}

export interface Sender {
  send(to: { readonly exchange: string; readonly routingKey: string }, given: Foreign, body?: Buffer): void;
  /** Resolves when the broker has taken all that was sent. */
  confirmed(): Promise<void>;
  close(): Promise<void>;
}

/** A program that sends what it likes, on a connection of its own. */
export async function connectForeign(): Promise<Sender> {
  const broker = connect('foreign');
  const connection = await broker.consuming.connected();
  const channel: ConfirmChannel = await connection.createConfirmChannel();
  const failures: unknown[] = [];
  channel.on('error', (error) => failures.push(error));
  const wire = wireOf(channel) ?? expect.fail();
  let sent = 0;
  const waiting = new Set<number>();
  channel.on('ack', ({ deliveryTag, multiple }: { deliveryTag: number; multiple: boolean }) => {
    for (const tag of multiple ? waiting : [deliveryTag]) if (tag <= deliveryTag) waiting.delete(tag);
  });
  const frame = (type: number, payload: Buffer): Buffer => {
    const head = Buffer.alloc(7);
    head.writeUInt8(type);
    head.writeUInt16BE(wire.channel, 1);
    head.writeUInt32BE(payload.length, 3);
    return Buffer.concat([head, payload, Buffer.from([0xce])]);
  };
  return {
    send({ exchange, routingKey }, given, body = Buffer.from('{}')) {
      const size = Buffer.alloc(8);
      size.writeBigUInt64BE(BigInt(body.length));
      const method = Buffer.concat([
        Buffer.from([0, 60, 0, 40, 0, 0]),
        short(exchange),
        short(routingKey),
        Buffer.from([0]),
      ]);
      const frames = [
        frame(1, method),
        frame(2, Buffer.concat([Buffer.from([0, 60, 0, 0]), size, propertiesOf(given)])),
      ];
      const most = wire.frameMax - 8;
      for (let at = 0; at < body.length; at += most) frames.push(frame(3, body.subarray(at, at + most)));
      for (const each of frames) wire.stream.write(each);
      waiting.add(++sent);
    },
    async confirmed() {
      await expect
        .poll(() => (failures.length > 0 ? failures : waiting.size === 0), { timeout: 30_000, interval: 10 })
        .toBe(true);
    },
    close: () => broker.close(),
  };
}
