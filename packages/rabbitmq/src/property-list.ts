import type { MessageProperties } from 'amqplib';
import { type Field, fieldsOf, isDeep, noteOf, readTable, tableOf } from './fields.ts';

// The basic properties of a message as bytes (AMQP 0-9-1, section 4.2.6.1): flags that say which
// are there, then these in the order of the flags, from the highest bit on.

const NAMES = [
  'contentType',
  'contentEncoding',
  'headers',
  'deliveryMode',
  'priority',
  'correlationId',
  'replyTo',
  'expiration',
  'messageId',
  'timestamp',
  'type',
  'userId',
  'appId',
  'clusterId',
] as const;
type Name = (typeof NAMES)[number];
/** Bytes of those that are no short text. */
const FIXED: Readonly<Partial<Record<Name, number>>> = { deliveryMode: 1, priority: 1, timestamp: 8 };
const PERSISTENT = Buffer.from([2]);

type Parts = ReadonlyMap<Name, Buffer>;

/** @throws RangeError for bytes that are no list of properties. */
function partsOf(list: Buffer): Parts {
  const flags = list.readUInt16BE(0);
  const parts = new Map<Name, Buffer>();
  let at = 2;
  for (const [bit, name] of NAMES.entries()) {
    if ((flags & (0x8000 >> bit)) === 0) continue;
    const size = name === 'headers' ? 4 + list.readUInt32BE(at) : (FIXED[name] ?? 1 + list.readUInt8(at));
    if (at + size > list.length) throw new RangeError(`The property ${name} cannot be read`);
    parts.set(name, list.subarray(at, at + size));
    at += size;
  }
  return parts;
}

function listOf(parts: Parts): Buffer {
  const flags = Buffer.alloc(2);
  const present = NAMES.flatMap((name, bit) => {
    const part = parts.get(name);
    if (part !== undefined) flags.writeUInt16BE(flags.readUInt16BE(0) | (0x8000 >> bit));
    return part ?? [];
  });
  return Buffer.concat([flags, ...present]);
}

const headersOf = (parts: Parts): Field[] => fieldsOf(parts.get('headers')?.subarray(4) ?? Buffer.alloc(0));

function withHeaders(parts: Parts, fields: readonly Field[]): Parts {
  const table = tableOf(fields);
  const size = Buffer.alloc(4);
  size.writeUInt32BE(table.length);
  return new Map([...parts, ['headers', Buffer.concat([size, table])]]);
}

/** See `isDeep`. @throws RangeError for bytes that are no list of properties. */
export const isDeepList = (list: Buffer): boolean =>
  isDeep(partsOf(list).get('headers')?.subarray(4) ?? Buffer.alloc(0));

/** What a copy takes along of a message's properties. */
export interface Copying {
  readonly property: (name: string, bytes: Buffer) => boolean;
  readonly header: (name: string) => boolean;
}

/**
 * The properties of a copy, byte for byte but for what it leaves out, its notes behind them, and
 * that it is persistent.
 *
 * @throws RangeError for bytes that are no list of properties.
 */
export function copyList(list: Buffer, copying: Copying, notes: Readonly<Record<string, string | number>>): Buffer {
  const parts = [...partsOf(list)].filter(([name, part]) => copying.property(name, part));
  const kept = new Map<Name, Buffer>([...parts, ['deliveryMode', PERSISTENT]]);
  const headers = headersOf(kept).filter(
    ({ name }) => copying.header(name.toString()) && !Object.hasOwn(notes, name.toString()),
  );
  const added = Object.entries(notes).map(([name, value]) => noteOf(name, value));
  return listOf(withHeaders(kept, [...headers, ...added]));
}

/**
 * What tells a message from another one, in an order that is not the broker's: RabbitMQ sorts
 * headers when it adds one.
 */
export function comparable(list: Buffer, isCompared: (header: string) => boolean): Buffer {
  const parts = partsOf(list);
  const headers = headersOf(parts).filter(({ name }) => isCompared(name.toString()));
  const sorted = headers.toSorted((a, b) => Buffer.compare(a.name, b.name) || Buffer.compare(a.value, b.value));
  return listOf(withHeaders(parts, sorted));
}

/**
 * The properties as amqplib gives them; see `readTable`. Undefined where there is none.
 *
 * @throws RangeError for bytes that are no list of properties.
 */
export function readList(list: Buffer): MessageProperties {
  const parts = partsOf(list);
  const text = (name: Name): string | undefined => parts.get(name)?.toString('utf8', 1);
  const time = parts.get('timestamp');
  const headers = parts.get('headers');
  return {
    contentType: text('contentType'),
    contentEncoding: text('contentEncoding'),
    headers: headers && readTable(headers.subarray(4)),
    deliveryMode: parts.get('deliveryMode')?.[0],
    priority: parts.get('priority')?.[0],
    correlationId: text('correlationId'),
    replyTo: text('replyTo'),
    expiration: text('expiration'),
    messageId: text('messageId'),
    timestamp: time && Number(time.readBigUInt64BE()),
    type: text('type'),
    userId: text('userId'),
    appId: text('appId'),
    clusterId: text('clusterId'),
  };
}
