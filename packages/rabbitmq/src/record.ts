import type { DeadMessage } from '@oncebox/message';
import type { ConsumeMessage } from 'amqplib';
import type { Sending } from './confirms.ts';
import { originalList, originalProperties, originalTo, toQueue } from './copies.ts';
import { plainList } from './frames.ts';
import { NOTE } from './notes.ts';
import { readList } from './property-list.ts';

// A message's properties in the tables: JSON text, for people to read, group and mend. JSON has one
// type of number and one header of a name; where that is not all that the message had, its bytes
// stand beside it, and a replay sends those as long as nobody has edited the rest.

/** The name of the bytes in the JSON, in base64. */
const BYTES = 'bytes';

export function originalPropertiesText(message: ConsumeMessage): string {
  const list = originalList(message);
  if (list === undefined) return JSON.stringify(originalProperties(message));
  const readable = readableOf(list);
  const isWhole = isPlain(readable, list);
  return JSON.stringify(isWhole ? readable : { ...readable, [BYTES]: list.toString('base64') });
}

/**
 * A dead letter for its consumer's own queue once more. Its attempts begin anew, since the notes of
 * its failures are gone.
 *
 * @returns undefined when its properties, which an operator may have edited, can't be read.
 */
export function sendingOf(queue: string, { routingKey, properties, body }: DeadMessage): Sending | undefined {
  let given: unknown;
  try {
    given = JSON.parse(properties, (_key, value) => (isBuffer(value) ? Buffer.from(value.data) : value));
  } catch {
    return undefined;
  }
  if (!isObject(given)) return undefined;
  const list = unedited(properties);
  if (list !== undefined) return originalTo(queue, body, list, routingKey);
  const headers = isObject(given['headers']) ? given['headers'] : {};
  return toQueue(queue, body, given, { ...headers, [NOTE.routingKey]: routingKey });
}

/** What people read of the properties, in this order, of which a comparison of texts makes use. */
function readableOf(list: Buffer): Readable {
  const { deliveryMode: _ours, expiration: _1, userId: _2, clusterId: _3, headers = {}, ...rest } = readList(list);
  return { ...rest, headers };
}

type Readable = Omit<Sending['options'], 'persistent'>;

function isPlain(readable: Readable, list: Buffer): boolean {
  const headers = new Set(Object.keys(readable.headers ?? {}));
  // An empty text and `__proto__` travel, and not through the JSON of everybody who edits it.
  if (headers.has('') || headers.has('__proto__')) return false;
  return plainList({ ...readable, persistent: true }) === list.toString('latin1');
}

/** The bytes beside the JSON, if they still say what it says. */
function unedited(properties: string): Buffer | undefined {
  try {
    const { [BYTES]: bytes, ...rest }: Record<string, unknown> = JSON.parse(properties);
    if (typeof bytes !== 'string') return undefined;
    const list = Buffer.from(bytes, 'base64');
    const said: unknown = JSON.parse(JSON.stringify(readableOf(list)));
    return JSON.stringify(said) === JSON.stringify(rest) ? list : undefined;
  } catch {
    return undefined;
  }
}

/** A Buffer as JSON.stringify writes it. */
const isBuffer = (value: unknown): value is { readonly data: readonly number[] } =>
  isObject(value) && value['type'] === 'Buffer' && Array.isArray(value['data']);

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
