import { createHash, randomUUID } from 'node:crypto';
import {
  type DeadLetter,
  type DeadMessage,
  fitsShortString,
  isExact,
  isVersion,
  orderedQueues,
} from '@oncebox/message';
import type { ConsumeMessage } from 'amqplib';
import type { Sending } from './confirms.ts';
import { failedAttempts, NOTE, originalProperties, originalRoutingKey, toQueue } from './copies.ts';

/** Reads a copy from a consumer's dead queue: one that we sent there, with our notes, or one that the broker moved there itself. */
export function deadLetterOf(message: ConsumeMessage, consumer: string, deliveryLimit: number): DeadLetter {
  const { properties, content } = message;
  const headers: Readonly<Record<string, unknown>> = properties.headers ?? {};
  const version = headers['schemaversion'];
  const letter = {
    messageId: text(properties.messageId),
    type: text(properties.type),
    version: isVersion(version) ? version : undefined,
    properties: JSON.stringify(originalProperties(message)),
    body: content,
    firstFailedAt: time(headers[NOTE.firstFailure]),
    occurredAt: time(headers['cloudEvents:time']),
    copyHash: hashOf(message),
  };
  const death = deathIn(headers, consumer);
  if (death === undefined) {
    return {
      ...letter,
      routingKey: originalRoutingKey(message),
      reason: text(headers[NOTE.reason]) ?? 'unknown',
      errorClass: text(headers[NOTE.errorClass]),
      attempts: failedAttempts(message),
      lastFailedAt: time(headers[NOTE.lastFailure]),
    };
  }
  return {
    ...letter,
    routingKey: noted(headers[NOTE.routingKey]) ?? death.routingKey ?? message.fields.routingKey,
    reason: death.reason,
    errorClass: undefined,
    // By the setting: x-delivery-count is gone from such a copy on RabbitMQ 3.10, and counts our own looks at it too on 4.3.
    attempts: failedAttempts(message) + (death.reason === 'delivery_limit' ? deliveryLimit + 1 : 1),
    firstFailedAt: letter.firstFailedAt ?? death.at,
    lastFailedAt: death.at,
  };
}

/**
 * The same message for its consumer's own queue once more. Its attempts begin anew, since the notes of its failures are gone.
 *
 * @returns undefined when its properties, which an operator may have edited, can't be read.
 */
export function replayOf(queue: string, { routingKey, properties, body }: DeadMessage): Sending | undefined {
  let given: unknown;
  try {
    given = JSON.parse(properties, (_key, value) => (isBuffer(value) ? Buffer.from(value.data) : value));
  } catch {
    return undefined;
  }
  if (!isObject(given)) return undefined;
  const headers = isObject(given['headers']) ? given['headers'] : {};
  return toQueue(queue, body, given, { ...headers, [NOTE.routingKey]: routingKey });
}

/** Its only queue, or one of an ordered consumer. */
const isQueueOf = (consumer: string, queue: unknown): boolean =>
  queue === consumer || orderedQueues(consumer).some((each) => each === queue);

/** What the broker writes when it gives up a message of the consumer's queue; the deaths in retry queues are no failures. */
function deathIn(headers: Readonly<Record<string, unknown>>, queue: string) {
  const deaths: unknown = headers['x-death'];
  const last: unknown = Array.isArray(deaths) ? deaths[0] : undefined; // the latest comes first
  if (!isObject(last) || !isQueueOf(queue, last['queue'])) return undefined;
  const keys = last['routing-keys'];
  const at = last['time'];
  return {
    reason: text(last['reason']) ?? 'unknown',
    routingKey: Array.isArray(keys) ? text(keys[0]) : undefined,
    at: isObject(at) && typeof at['value'] === 'number' ? new Date(at['value'] * 1_000) : undefined,
  };
}

/**
 * Without the two headers that count the deliveries of this very copy, and with the others sorted: RabbitMQ 3.10 sorts them when it
 * adds its count.
 *
 * Two messages whose ids differ in bytes that are not UTF-8 may be alike in all that amqplib gives. Where our note does not tell their
 * copies apart, because the broker moved them, each delivery is a letter of its own: one kept twice is better than one lost.
 */
function hashOf({ properties, content }: ConsumeMessage): Buffer {
  const { 'x-delivery-count': _delivered, 'x-acquired-count': _acquired, ...headers } = properties.headers ?? {};
  const sorted = Object.entries(headers).sort(([a], [b]) => (a < b ? -1 : 1));
  const isFolded = headers[NOTE.copy] === undefined && !isExact(text(properties.messageId) ?? '');
  const hash = createHash('sha256').update(JSON.stringify({ ...properties, headers: sorted }));
  if (isFolded) hash.update(randomUUID());
  return hash.update('\0').update(content).digest();
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** A Buffer as JSON.stringify writes it. */
const isBuffer = (value: unknown): value is { readonly data: readonly number[] } =>
  isObject(value) && value['type'] === 'Buffer' && Array.isArray(value['data']);

const text = (value: unknown): string | undefined => (typeof value === 'string' && value !== '' ? value : undefined);

/** A note that no column could hold is somebody else's. */
const noted = (value: unknown): string | undefined => (fitsShortString(value) ? value : undefined);

function time(value: unknown): Date | undefined {
  const date = typeof value === 'string' ? new Date(value) : undefined;
  return date === undefined || Number.isNaN(date.getTime()) ? undefined : date;
}
