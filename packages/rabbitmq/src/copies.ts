import { randomUUID } from 'node:crypto';
import { fitsShortString, nameOf, reasonOf } from '@oncebox/message';
import type { ConsumeMessage, MessageProperties, Options } from 'amqplib';
import type { Sending } from './confirms.ts';

/** Our notes on a message that failed, in its copies' headers. */
export const NOTE = {
  attempts: 'x-oncebox-attempts',
  routingKey: 'x-oncebox-routing-key',
  firstFailure: 'x-oncebox-first-failure',
  lastFailure: 'x-oncebox-last-failure',
  consumer: 'x-oncebox-consumer',
  reason: 'x-oncebox-reason',
  errorClass: 'x-oncebox-error-class',
  /** Makes each copy another: several messages without an id may be the same in all else. */
  copy: 'x-oncebox-copy',
} as const;
const NOTES: ReadonlySet<string> = new Set(Object.values(NOTE));

/**
 * Headers that are not the sender's words but the broker's notes on one copy's way, and `CC`, which would send our copy to
 * other queues as well. RabbitMQ drops CC when it dead-letters, for the same reason.
 */
const NOT_COPIED: ReadonlySet<string> = new Set([
  'x-death',
  'x-delivery-count',
  'x-acquired-count',
  'x-stream-offset',
  'CC',
]);
const isCopied = ([name]: [string, unknown]): boolean => !NOT_COPIED.has(name) && !/^x-(first|last)-death-/.test(name);
const isOriginal = (entry: [string, unknown]): boolean => isCopied(entry) && !NOTES.has(entry[0]);

/** How many attempts at this message have failed before this delivery, by our own count; a crash or an outage is none. */
export function failedAttempts({ properties }: ConsumeMessage): number {
  const value: unknown = properties.headers?.[NOTE.attempts];
  return typeof value === 'number' && value > 0 ? value : 0;
}

/** The key that the message was first published with. A note that is no key is somebody else's, and no column could hold it. */
export function originalRoutingKey({ properties, fields }: ConsumeMessage): string {
  const value: unknown = properties.headers?.[NOTE.routingKey];
  return fitsShortString(value) ? value : fields.routingKey;
}

/**
 * What of a message's properties goes with its copies. `expiration` does not, because it would make a copy vanish from the dead
 * queue, and neither does `userId`, which the broker compares with the sender's.
 */
const copiedProperties = (properties: Partial<MessageProperties>): Options.Publish => ({
  contentType: properties.contentType,
  contentEncoding: properties.contentEncoding,
  priority: properties.priority,
  correlationId: properties.correlationId,
  replyTo: properties.replyTo,
  messageId: properties.messageId,
  timestamp: properties.timestamp,
  type: properties.type,
  appId: properties.appId,
});

/** The same message for a retry queue or the dead queue, with a record of its failures. */
export function copyTo(
  queue: string,
  message: ConsumeMessage,
  failure: { readonly consumer: string; readonly attempts: number; readonly error: Error },
): Sending {
  const { properties, content } = message;
  const now = new Date().toISOString();
  const original = Object.fromEntries(Object.entries(properties.headers ?? {}).filter(isCopied));
  return toQueue(queue, content, properties, {
    ...original,
    [NOTE.routingKey]: originalRoutingKey(message),
    [NOTE.attempts]: failure.attempts,
    [NOTE.consumer]: failure.consumer,
    [NOTE.firstFailure]: original[NOTE.firstFailure] ?? now,
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

/** The same message for another queue, with its notes and these headers. */
export const copyOf = (queue: string, { content, properties }: Delivered, headers: object): Sending =>
  toQueue(queue, content, properties, {
    ...Object.fromEntries(Object.entries(properties.headers ?? {}).filter(isCopied)),
    ...headers,
  });

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

/** A message's properties and headers as its sender gave them, and nothing that depends on how often they were delivered. */
export function originalProperties({ properties }: ConsumeMessage): object {
  const headers = Object.fromEntries(Object.entries(properties.headers ?? {}).filter(isOriginal));
  return { ...copiedProperties(properties), headers };
}
