import type { ChannelModel, MessageProperties } from 'amqplib';
import { readList } from './property-list.ts';

// amqplib decodes the properties of a delivery and lets go of their bytes; decoded, int64 is a
// rounded number, of two headers of a name one is left, and text that is not UTF-8 is other text.
// So the bytes are kept beside them, from where amqplib reads its frames.

const LISTS = new WeakMap<object, Buffer>();

/**
 * The bytes of a delivery's properties; undefined where they are not known, because amqplib reads
 * its frames elsewhere by now.
 */
export const listFor = (properties: object): Buffer | undefined => LISTS.get(properties);

/**
 * Properties that were read from these bytes. @throws RangeError for bytes that are no list of
 * properties.
 */
export function propertiesOf(list: Buffer): MessageProperties {
  const properties = readList(list);
  LISTS.set(properties, list);
  return properties;
}

/** Type, channel and size of a frame, and its end mark. */
const [HEAD_BYTES, END_BYTES] = [7, 1];
const HEADER_FRAME = 2;
/** What a header frame has before the properties: class, weight, and the body's size. */
const LIST_AT = 12;
const BODY_SIZE_AT = 4;
const BASIC = 60;

/**
 * Keeps the bytes of the properties of what comes on a connection. And where amqplib cannot decode
 * them it would close the connection, which one message of another program would do again and again
 * to every consumer of the process: then they are decoded here.
 */
export function keepBytes({ connection }: ChannelModel): void {
  const recvFrame: unknown = Reflect.get(connection, 'recvFrame');
  if (typeof recvFrame !== 'function') return;
  // Calls itself when it has read more, and so comes by here with a whole frame in any case.
  Reflect.set(connection, 'recvFrame', (): unknown => {
    const payload = wholeHeader(Reflect.get(connection, 'rest'));
    let frame: unknown;
    try {
      frame = recvFrame.call(connection);
    } catch (error) {
      const read = payload === undefined ? undefined : readFrame(payload);
      if (read === undefined) throw error;
      return read;
    }
    if (payload !== undefined) {
      const fields: unknown = Reflect.get(Object(frame), 'fields');
      if (typeof fields === 'object' && fields !== null) LISTS.set(fields, payload.bytes.subarray(LIST_AT));
    }
    return frame;
  });
}

interface Payload {
  readonly channel: number;
  readonly bytes: Buffer;
}

function wholeHeader(rest: unknown): Payload | undefined {
  if (!Buffer.isBuffer(rest) || rest[0] !== HEADER_FRAME || rest.length < HEAD_BYTES) return undefined;
  const end = HEAD_BYTES + rest.readUInt32BE(3);
  if (rest.length < end + END_BYTES || end < HEAD_BYTES + LIST_AT) return undefined;
  return { channel: rest.readUInt16BE(1), bytes: rest.subarray(HEAD_BYTES, end) };
}

/** A header frame as amqplib's own decoder gives it. */
function readFrame({ channel, bytes }: Payload): object | undefined {
  try {
    const size = Number(bytes.readBigInt64BE(BODY_SIZE_AT));
    return { id: BASIC, channel, size, fields: propertiesOf(bytes.subarray(LIST_AT)) };
  } catch {
    return undefined;
  }
}
