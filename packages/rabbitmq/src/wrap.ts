import type { ConsumeMessage } from 'amqplib';
import { propertiesOf } from './bytes.ts';
import type { Outcome, Sending } from './confirms.ts';
import { plainBytes } from './frames.ts';
import { isNote, NOTE } from './notes.ts';
import { copyList, isDeepList } from './property-list.ts';
import type { Sender } from './sender.ts';

/** Bytes that say how long the properties at the beginning of a wrapped body are. */
const SIZE_BYTES = 4;
/** The broker's own headers, which it puts on the wrapping. */
const BROKER_HEADERS = ['x-death', 'x-delivery-count'] as const;

/**
 * Sends a copy, wrapped if its headers leave no room for our notes: a frame has an end, and the
 * sender's headers may go up to it. And if the broker would take so long to read them that the
 * copies of all others wait for it on this channel.
 */
export async function sendCopy(sender: Pick<Sender, 'send'>, copy: Sending): Promise<Outcome> {
  const isDeep = copy.list !== undefined && isDeepList(copy.list);
  const outcome = isDeep ? undefined : await sender.send(copy);
  if (outcome !== undefined && outcome.kind !== 'unsendable') return outcome;
  const wrapped = wrap(copy);
  return wrapped === undefined ? (outcome ?? (await sender.send(copy))) : await sender.send(wrapped);
}

/**
 * A message whose properties go in front of its body, in whose headers our notes alone are left.
 */
function wrap(copy: Sending): Sending | undefined {
  const list = copy.list ?? plainBytes(copy.options);
  if (list === undefined) return undefined;
  const size = Buffer.alloc(SIZE_BYTES);
  size.writeUInt32BE(list.length);
  const copying = { property: () => true, header: isNote };
  const notes = Object.entries(copy.options.headers ?? {}).filter(([name]) => isNote(name));
  return {
    ...copy,
    options: { ...copy.options, headers: { ...Object.fromEntries(notes), [NOTE.wrapped]: 1 } },
    list: copyList(list, copying, { [NOTE.wrapped]: 1 }),
    body: Buffer.concat([size, list, copy.body]),
  };
}

/** The message that was wrapped; any other is itself. */
export function unwrapped(message: ConsumeMessage): ConsumeMessage {
  const { properties, content } = message;
  if (properties.headers?.[NOTE.wrapped] !== 1 || content.length < SIZE_BYTES) return message;
  const end = SIZE_BYTES + content.readUInt32BE(0);
  if (end > content.length) return message;
  try {
    const given = propertiesOf(content.subarray(SIZE_BYTES, end));
    for (const name of BROKER_HEADERS) {
      const value: unknown = properties.headers[name];
      if (value !== undefined) given.headers = { ...given.headers, [name]: value };
    }
    return { ...message, properties: given, content: content.subarray(end) };
  } catch {
    return message; // somebody else's
  }
}
