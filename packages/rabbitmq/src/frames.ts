import type { Sending } from './confirms.ts';

// AMQP 0-9-1, section 4.2: a message is a method frame, a header frame and body frames. A frame is
// its type, channel and size, what it carries, and an end mark.
// https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf

const FRAME_OVERHEAD = 8;
export const END_MARK = 0xce;
const END = String.fromCharCode(END_MARK);
const BASIC_PUBLISH = '\x00\x3c\x00\x28';
const PERSISTENT = '\x02';
/** Class basic, weight 0. */
const BASIC = '\x00\x3c\x00\x00';
/**
 * The properties that a message of ours has, by their flags: their order on the wire is that of the
 * flags.
 */
const FLAGS = {
  contentType: 0x8000,
  headers: 0x2000,
  persistent: 0x1000,
  correlationId: 0x0400,
  messageId: 0x0080,
  timestamp: 0x0040,
  type: 0x0020,
  appId: 0x0008,
};
/** Not a property: it goes into the method. */
const KNOWN = new Set([...Object.keys(FLAGS), 'mandatory']);

/** Where a message goes, as far as its frames depend on it. */
export interface FrameLimits {
  readonly channel: number;
  /** Most bytes of a frame, as client and broker have agreed. */
  readonly frameMax: number;
}

/** Thrown within this file for what is left to amqplib. */
const NOT_PLAIN = Symbol('not plain');

/**
 * The bytes of a message before its body, as latin1 text: one string is written to a buffer in one
 * call, where amqplib makes ten or so calls and three buffers of each message, which was a third of
 * a relay's time. The same bytes as amqplib's, which `frames.test.ts` compares.
 *
 * @returns undefined for what needs more than this knows, which amqplib then sends or refuses:
 *   other properties or types of headers, names that are too long, more than one body frame.
 */
export function encodeHead(wire: FrameLimits, sending: Sending): string | undefined {
  const { body, options } = sending;
  const most = wire.frameMax - FRAME_OVERHEAD;
  if (body.length === 0 || body.length > most) return undefined;
  const list = plainList(options);
  if (list === undefined) return undefined;
  try {
    const method = methodOf(sending);
    const header = `${BASIC}\0\0\0\0${u32(body.length)}${list}`;
    if (header.length > most) return undefined;
    const on = u16(wire.channel);
    return `\x01${on}${u32(method.length)}${method}${END}\x02${on}${u32(header.length)}${header}${END}\x03${on}${u32(body.length)}`;
  } catch (error) {
    if (error === NOT_PLAIN) return undefined;
    throw error;
  }
}

/**
 * The properties of a message as latin1 text, with the bytes of amqplib's.
 *
 * @returns undefined for other properties or types of headers than a message of ours has, and for
 *   names that are too long.
 */
export function plainList(options: Sending['options']): string | undefined {
  for (const name in options) if (!KNOWN.has(name) && Reflect.get(options, name) !== undefined) return undefined;
  if (options.persistent !== true) return undefined;
  const { contentType, headers, correlationId, messageId, timestamp, type, appId } = options;
  const flags =
    FLAGS.persistent |
    FLAGS.headers |
    (contentType === undefined ? 0 : FLAGS.contentType) |
    (correlationId === undefined ? 0 : FLAGS.correlationId) |
    (messageId === undefined ? 0 : FLAGS.messageId) |
    (timestamp === undefined ? 0 : FLAGS.timestamp) |
    (type === undefined ? 0 : FLAGS.type) |
    (appId === undefined ? 0 : FLAGS.appId);
  try {
    return (
      u16(flags) +
      (contentType === undefined ? '' : short(contentType)) +
      table(headers) +
      PERSISTENT +
      (correlationId === undefined ? '' : short(correlationId)) +
      (messageId === undefined ? '' : short(messageId)) +
      (timestamp === undefined ? '' : seconds(timestamp)) +
      (type === undefined ? '' : short(type)) +
      (appId === undefined ? '' : short(appId))
    );
  } catch (error) {
    if (error === NOT_PLAIN) return undefined;
    throw error;
  }
}

/** The same as bytes. */
export function plainBytes(options: Sending['options']): Buffer | undefined {
  const list = plainList(options);
  return list === undefined ? undefined : Buffer.from(list, 'latin1');
}

/**
 * The frames of a message whose properties are bytes already.
 *
 * @throws RangeError when they are more than fits a frame: a header frame is never divided.
 */
export function framesOf(wire: FrameLimits, sending: Sending, list: Buffer): Buffer[] {
  const { body } = sending;
  const most = wire.frameMax - FRAME_OVERHEAD;
  const header = Buffer.concat([Buffer.from(`${BASIC}\0\0\0\0${u32(body.length)}`, 'latin1'), list]);
  if (header.length > most) throw new RangeError(`Its properties take ${list.length} bytes, and a frame ${most}`);
  const frames = [frameOf(wire, 1, methodBytes(sending)), frameOf(wire, 2, header)];
  for (let at = 0; at < body.length; at += most) frames.push(frameOf(wire, 3, body.subarray(at, at + most)));
  return frames;
}

function frameOf({ channel }: FrameLimits, type: number, payload: Buffer): Buffer {
  const head = Buffer.from(`${String.fromCharCode(type)}${u16(channel)}${u32(payload.length)}`, 'latin1');
  return Buffer.concat([head, payload, Buffer.from([END_MARK])]);
}

function methodBytes(sending: Sending): Buffer {
  try {
    return Buffer.from(methodOf(sending), 'latin1');
  } catch (error) {
    if (error === NOT_PLAIN) throw new RangeError('The exchange or the routing key is over 255 bytes');
    throw error;
  }
}

const methodOf = ({ exchange, routingKey, options }: Sending): string =>
  `${BASIC_PUBLISH}\0\0${short(exchange)}${short(routingKey)}${options.mandatory === true ? '\x01' : '\0'}`;

/** Integers as amqplib picks their types: a headers exchange compares types too. */
function table(headers: Readonly<Record<string, unknown>> = {}): string {
  let fields = '';
  for (const name in headers) {
    const value = headers[name];
    if (value === undefined) continue;
    fields += short(name);
    if (typeof value === 'string') {
      const text = utf8(value);
      fields += `S${u32(text.length)}${text}`;
    } else if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < 0x8000) {
      fields += value < 0x80 ? `b${String.fromCharCode(value)}` : `s${u16(value)}`;
    } else throw NOT_PLAIN;
  }
  return u32(fields.length) + fields;
}

function short(value: unknown): string {
  if (typeof value !== 'string') throw NOT_PLAIN;
  const text = utf8(value);
  if (text.length > 255) throw NOT_PLAIN;
  return String.fromCharCode(text.length) + text;
}

/** A u64, of which the half that lasts until 2106 is enough. */
function seconds(value: number): string {
  if (!Number.isInteger(value) || value < 0 || value > 0xffffffff) throw NOT_PLAIN;
  return `\0\0\0\0${u32(value)}`;
}

/** What UTF-8 and latin1 write alike. */
const ASCII = /^[\0-\x7f]*$/;
const utf8 = (text: string): string => (ASCII.test(text) ? text : Buffer.from(text, 'utf8').toString('latin1'));
const u16 = (value: number): string => String.fromCharCode(value >>> 8, value & 0xff);
const u32 = (value: number): string =>
  String.fromCharCode(value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff);
