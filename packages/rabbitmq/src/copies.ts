import { randomUUID } from 'node:crypto';
import { nameOf, reasonOf } from '@oncebox/message';
import type { ConsumeMessage, MessageProperties, Options } from 'amqplib';
import { listFor } from './bytes.ts';
import type { Sending } from './confirms.ts';
import { plainList } from './frames.ts';
import { isNote, isTime, NOTE, originalRoutingKey } from './notes.ts';
import { type Copying, copyList, readList } from './property-list.ts';

/**
 * Headers that are not the sender's words but the broker's notes on one copy's way, and `CC` and
 * `BCC`, which would send our copy to other queues as well. RabbitMQ drops CC when it dead-letters,
 * for the same reason.
 */
const NOT_COPIED: ReadonlySet<string> = new Set([
  'x-death',
  'x-delivery-count',
  'x-acquired-count',
  'x-stream-offset',
  'CC',
  'BCC',
]);
const isCopied = (header: string): boolean => !NOT_COPIED.has(header) && !/^x-(first|last)-death-/.test(header);
const isOriginal = (header: string): boolean => isCopied(header) && !isNote(header);

/**
 * What of a message's properties goes with its copies. `expiration` does not, because it would make
 * a copy vanish from the dead queue, and neither does `userId`, which the broker compares with the
 * sender's.
 */
const COPIED = [
  'contentType',
  'contentEncoding',
  'priority',
  'correlationId',
  'replyTo',
  'messageId',
  'timestamp',
  'type',
  'appId',
] as const;

/**
 * Means the channel that sends. Sent on one that awaits no replies, the broker closes that channel.
 */
const REPLY_TO_SENDER = 'amq.rabbitmq.reply-to';
const isSendable = (name: string, value: unknown): boolean => name !== 'replyTo' || value !== REPLY_TO_SENDER;

const COPIES: Copying = {
  property: (name, bytes) =>
    name === 'headers' ||
    (COPIED.some((each) => each === name) && (name !== 'replyTo' || isSendable(name, bytes.toString('utf8', 1)))),
  header: isCopied,
};
const ORIGINALS: Copying = { ...COPIES, header: isOriginal };

const copiedProperties = (properties: Partial<MessageProperties>): Options.Publish =>
  Object.fromEntries(
    COPIED.map((name) => [name, properties[name]]).filter(([name, value]) => isSendable(String(name), value)),
  );

export interface Failed {
  readonly consumer: string;
  readonly attempts: number;
  readonly error: Error;
}

/** The same message for a retry queue or the dead queue, with a record of its failures. */
export function copyTo(queue: string, message: ConsumeMessage, failure: Failed): Sending {
  const now = new Date().toISOString();
  const first: unknown = message.properties.headers?.[NOTE.firstFailure];
  return copyOf(queue, message, {
    [NOTE.routingKey]: originalRoutingKey(message),
    [NOTE.attempts]: failure.attempts,
    [NOTE.consumer]: failure.consumer,
    [NOTE.firstFailure]: isTime(first) ? first : now,
    [NOTE.lastFailure]: now,
    [NOTE.reason]: reasonOf(failure.error),
    [NOTE.errorClass]: nameOf(failure.error),
    [NOTE.copy]: randomUUID(),
  });
}

export interface Delivered {
  readonly content: Buffer;
  readonly properties: Partial<MessageProperties>;
}

/** The same message for another queue: byte for byte, with its notes and these ones. */
export function copyOf(
  queue: string,
  { content, properties }: Delivered,
  notes: Readonly<Record<string, string | number>>,
): Sending {
  const given = Object.entries(properties.headers ?? {}).filter(([name]) => isCopied(name));
  const sending = toQueue(queue, content, properties, { ...Object.fromEntries(given), ...notes });
  const list = listFor(properties);
  if (list !== undefined) return { ...sending, list: copyList(list, COPIES, notes) };
  if (plainList(sending.options) !== undefined || notes[NOTE.reason] === undefined) return sending;
  const reason = `${notes[NOTE.reason]} (the types of its headers may have changed on the way)`.slice(0, 500);
  return {
    ...sending,
    options: { ...sending.options, headers: { ...sending.options.headers, [NOTE.reason]: reason } },
  };
}

/** A message by the default exchange, which has each queue bound for its own name. */
export const toQueue = (
  queue: string,
  body: Buffer,
  properties: Partial<MessageProperties>,
  headers: object,
): Sending => ({
  exchange: '',
  routingKey: queue,
  body,
  options: { ...copiedProperties(properties), persistent: true, mandatory: true, headers },
});

/** The message as it was before its notes, for another queue. */
export function originalTo(queue: string, body: Buffer, list: Buffer, routingKey: string): Sending {
  const notes = { [NOTE.routingKey]: routingKey };
  return { ...toQueue(queue, body, readList(list), notes), list: copyList(list, ORIGINALS, notes) };
}

/**
 * A message's properties and headers as its sender gave them, and nothing that depends on how often
 * they were delivered.
 */
export function originalProperties({ properties }: ConsumeMessage): object {
  const headers = Object.entries(properties.headers ?? {}).filter(([name]) => isOriginal(name));
  return { ...copiedProperties(properties), headers: Object.fromEntries(headers) };
}

/** The same as bytes. */
export function originalList({ properties }: ConsumeMessage): Buffer | undefined {
  const list = listFor(properties);
  return list && copyList(list, ORIGINALS, {});
}
