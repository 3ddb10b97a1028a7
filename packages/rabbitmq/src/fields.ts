// AMQP's field tables (section 4.2.5.5, with the types that RabbitMQ takes:
// https://www.rabbitmq.com/amqp-0-9-1-errata.html), as bytes. A number in JavaScript does not say
// as which of ten types it came, so what is copied is cut out of the bytes and never decoded.

/** A header as it came: its name, and its value with the tag of its type. */
export interface Field {
  readonly name: Buffer;
  readonly value: Buffer;
}

/** Bytes of a value behind its tag. */
const SIZES: Readonly<Record<string, number>> = {
  V: 0,
  t: 1,
  b: 1,
  B: 1,
  s: 2,
  u: 2,
  I: 4,
  i: 4,
  f: 4,
  D: 5,
  l: 8,
  L: 8,
  d: 8,
  T: 8,
};
/** Text, bytes, a table, an array: their length comes first. */
const HAS_LENGTH = 'SxFA';
/** A table in a table in a table …: JSON and stacks have an end before a frame has. */
const DEEPEST = 32;
/** Stands in what people read for what lies deeper. */
const TOO_DEEP = `(nested more than ${DEEPEST} deep)`;

function endOf(bytes: Buffer, at: number): number {
  const tag = String.fromCharCode(bytes.readUInt8(at));
  const size = HAS_LENGTH.includes(tag) ? 4 + bytes.readUInt32BE(at + 1) : SIZES[tag];
  const end = at + 1 + (size ?? Number.POSITIVE_INFINITY);
  if (end > bytes.length) throw new RangeError(`A header's value of type ${JSON.stringify(tag)} cannot be read`);
  return end;
}

/**
 * The headers of a table, in their order. A name may be there twice.
 *
 * @param table without its own length.
 * @throws RangeError for bytes that are no table.
 */
export function fieldsOf(table: Buffer): Field[] {
  const fields: Field[] = [];
  for (let at = 0; at < table.length; ) {
    const begin = at + 1 + table.readUInt8(at);
    const end = endOf(table, begin);
    fields.push({ name: table.subarray(at + 1, begin), value: table.subarray(begin, end) });
    at = end;
  }
  return fields;
}

export const tableOf = (fields: readonly Field[]): Buffer =>
  Buffer.concat(fields.flatMap(({ name, value }) => [Buffer.from([name.length]), name, value]));

/** One of our notes: a text or a whole number of 32 bits. */
export function noteOf(name: string, value: string | number): Field {
  if (typeof value === 'string') return { name: Buffer.from(name), value: sized('S', Buffer.from(value)) };
  const bytes = Buffer.from('I0000');
  bytes.writeInt32BE(value, 1);
  return { name: Buffer.from(name), value: bytes };
}

function sized(tag: string, content: Buffer): Buffer {
  const head = Buffer.from(`${tag}0000`);
  head.writeUInt32BE(content.length, 1);
  return Buffer.concat([head, content]);
}

/**
 * A table's values as amqplib gives them, for those tables too that amqplib cannot read: of type L,
 * or nested so deep that its decoder runs out of stack, at which it closes the connection of every
 * consumer.
 *
 * @throws RangeError for bytes that are no table.
 */
export function readTable(table: Buffer, depth = 0): Record<string, unknown> {
  // Without a prototype, so that a header named __proto__ is one like any other.
  const values: Record<string, unknown> = Object.create(null);
  for (const { name, value } of fieldsOf(table)) values[name.toString()] = readValue(value, depth);
  return values;
}

function* valuesOf(array: Buffer): Generator<Buffer> {
  for (let at = 0; at < array.length; ) {
    const end = endOf(array, at);
    yield array.subarray(at, end);
    at = end;
  }
}

const readArray = (array: Buffer, depth: number): unknown[] =>
  [...valuesOf(array)].map((value) => readValue(value, depth));

/**
 * Whether its values lie deeper than `readTable` reads them. Then it takes the broker a time that
 * grows with the square of the depth to read them (RabbitMQ 3.10: 0.8 s at 10,000 levels, 7 s at
 * 20,000).
 */
export const isDeep = (table: Buffer, depth = 0): boolean =>
  depth > DEEPEST || fieldsOf(table).some(({ value }) => isDeepValue(value, depth));

function isDeepValue(value: Buffer, depth: number): boolean {
  const content = value.subarray(1 + 4);
  if (value[0] === TABLE) return isDeep(content, depth + 1);
  return value[0] === ARRAY && (depth >= DEEPEST || valuesOf(content).some((each) => isDeepValue(each, depth + 1)));
}
const [TABLE, ARRAY] = Buffer.from('FA');

const READ: Readonly<Record<string, (bytes: Buffer, depth: number) => unknown>> = {
  V: () => null,
  t: (bytes) => bytes[0] !== 0,
  b: (bytes) => bytes.readInt8(),
  B: (bytes) => bytes.readUInt8(),
  s: (bytes) => bytes.readInt16BE(),
  u: (bytes) => bytes.readUInt16BE(),
  I: (bytes) => bytes.readInt32BE(),
  i: (bytes) => bytes.readUInt32BE(),
  f: (bytes) => bytes.readFloatBE(),
  D: (bytes) => ({ '!': 'decimal', value: { places: bytes[0], digits: bytes.readUInt32BE(1) } }),
  l: (bytes) => Number(bytes.readBigInt64BE()),
  L: (bytes) => Number(bytes.readBigInt64BE()),
  d: (bytes) => bytes.readDoubleBE(),
  T: (bytes) => ({ '!': 'timestamp', value: Number(bytes.readBigUInt64BE()) }),
  S: (bytes) => bytes.toString('utf8', 4),
  x: (bytes) => bytes.subarray(4),
  F: (bytes, depth) => (depth < DEEPEST ? readTable(bytes.subarray(4), depth + 1) : TOO_DEEP),
  A: (bytes, depth) => (depth < DEEPEST ? readArray(bytes.subarray(4), depth + 1) : TOO_DEEP),
};

const readValue = (value: Buffer, depth: number): unknown =>
  READ[String.fromCharCode(value[0] ?? 0)]?.(value.subarray(1), depth);
