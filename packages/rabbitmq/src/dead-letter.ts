import { createHash, randomUUID } from 'node:crypto';
import { type DeadLetter, deadQueue, isExact, isVersion, orderedQueues } from '@oncebox/message';
import type { ConsumeMessage } from 'amqplib';
import { listFor } from './bytes.ts';
import { failedAttempts, isTime, NOTE, originalRoutingKey } from './notes.ts';
import { comparable } from './property-list.ts';
import { originalPropertiesText } from './record.ts';

/** What a dead letter says of the message itself, whatever became of it. */
export function originalOf(message: ConsumeMessage) {
  const { properties, content } = message;
  const headers: Readonly<Record<string, unknown>> = properties.headers ?? {};
  const version = headers['schemaversion'];
  return {
    messageId: text(properties.messageId),
    type: text(properties.type),
    version: isVersion(version) ? version : undefined,
    routingKey: originalRoutingKey(message),
    properties: originalPropertiesText(message),
    body: content,
    occurredAt: time(headers['cloudEvents:time']),
  };
}

/**
 * Reads a copy from a consumer's dead queue: one that we sent there, with our notes, or one that
 * came there by itself. Never throws.
 */
export function deadLetterOf(message: ConsumeMessage, consumer: string, deliveryLimit: number): DeadLetter {
  const headers: Readonly<Record<string, unknown>> = message.properties.headers ?? {};
  const first: unknown = headers[NOTE.firstFailure];
  const last: unknown = headers[NOTE.lastFailure];
  const letter = {
    ...originalOf(message),
    firstFailedAt: isTime(first) ? new Date(first) : undefined,
    copyHash: hashOf(message),
    ...stubHashIn(headers),
  };
  const death = deathIn(headers, consumer);
  if (death === undefined) {
    return {
      ...letter,
      reason: text(headers[NOTE.reason]) ?? unknownWay(consumer),
      errorClass: text(headers[NOTE.errorClass]),
      attempts: failedAttempts(message, consumer),
      lastFailedAt: isTime(last) ? new Date(last) : undefined,
    };
  }
  return {
    ...letter,
    routingKey: headers[NOTE.routingKey] === undefined ? (death.routingKey ?? letter.routingKey) : letter.routingKey,
    reason: wordsOf(death),
    errorClass: undefined,
    // By the setting: x-delivery-count is gone from such a copy on RabbitMQ 3.10, and counts our
    // own looks at it too on 4.3.
    attempts: failedAttempts(message, consumer) + (death.reason === 'delivery_limit' ? deliveryLimit + 1 : 1),
    firstFailedAt: letter.firstFailedAt ?? death.at,
    lastFailedAt: death.at,
  };
}

/** Its only queue, or one of an ordered consumer. */
const isQueueOf = (consumer: string, queue: unknown): queue is string =>
  queue === consumer || orderedQueues(consumer).some((each) => each === queue);

interface Death {
  readonly reason: string;
  readonly queue: string;
  readonly count: number;
  readonly routingKey: string | undefined;
  readonly at: Date | undefined;
}

/**
 * What the broker writes when it gives up a message of the consumer's queue; the deaths in retry
 * queues are no failures.
 */
function deathIn(headers: Readonly<Record<string, unknown>>, consumer: string): Death | undefined {
  const deaths: unknown = headers['x-death'];
  const last: unknown = Array.isArray(deaths) ? deaths[0] : undefined; // the latest comes first
  if (!isObject(last) || !isQueueOf(consumer, last['queue'])) return undefined;
  const { queue, reason, count, time: at, 'routing-keys': keys } = last;
  return {
    reason: text(reason) ?? 'unknown',
    queue,
    count: typeof count === 'number' && count > 0 ? count : 1,
    routingKey: Array.isArray(keys) ? text(keys[0]) : undefined,
    at: isObject(at) && typeof at['value'] === 'number' ? new Date(at['value'] * 1_000) : undefined,
  };
}

/** In words, because nobody of ours was there to say why. */
function wordsOf({ reason, queue, count }: Death): string {
  const times = `${count} ${count === 1 ? 'time' : 'times'}`;
  const words: Readonly<Record<string, string>> = {
    delivery_limit: `the broker gave it up in the queue ${queue}, whose delivery limit it reached ${times}: what had it in hand ended before it was settled, as a process that crashes does`,
    rejected: `a client rejected it from the queue ${queue}, ${times}; a worker of Oncebox does so only with what it can neither copy nor store, and its log says why`,
    expired: `it expired in the queue ${queue}, ${times}: its sender or a policy gave it a time to live`,
    maxlen: `the broker dropped it from the queue ${queue}, ${times}: a policy gave the queue a greatest length`,
  };
  return `${reason}: ${words[reason] ?? `the broker gave it up in the queue ${queue}, ${times}`}`;
}

const unknownWay = (consumer: string): string =>
  `unknown: it came to ${deadQueue(consumer)} without a note, so another program sent or moved it there`;

/** Of a copy that was set aside, as its stub among the dead letters has it. */
function stubHashIn(headers: Readonly<Record<string, unknown>>): Pick<DeadLetter, 'stubHash'> {
  const hash = headers[NOTE.setAside];
  return typeof hash === 'string' && /^[0-9a-f]{64}$/.test(hash) ? { stubHash: Buffer.from(hash, 'hex') } : {};
}

/** Headers that count the deliveries of this very copy. */
const COUNTS: ReadonlySet<string> = new Set(['x-delivery-count', 'x-acquired-count']);

/**
 * The same for each delivery of one copy.
 *
 * Two messages without an id may be alike in all else, and where their bytes are not known, so may
 * two whose ids are not UTF-8. Where our note does not tell their copies apart, because the broker
 * moved them, each delivery is a letter of its own: one kept twice is better than one lost.
 */
function hashOf({ properties, content }: ConsumeMessage): Buffer {
  const hash = createHash('sha256');
  const list = listFor(properties);
  if (list === undefined) {
    const headers = Object.entries(properties.headers ?? {}).filter(([name]) => !COUNTS.has(name));
    const sorted = headers.sort(([a], [b]) => (a < b ? -1 : 1));
    hash.update(JSON.stringify({ ...properties, headers: sorted }));
  } else hash.update(comparable(list, (name) => !COUNTS.has(name)));
  const id = text(properties.messageId);
  const isTold = id !== undefined && (list !== undefined || isExact(id));
  if (properties.headers?.[NOTE.copy] === undefined && !isTold) hash.update(randomUUID());
  return hash.update('\0').update(content).digest();
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const text = (value: unknown): string | undefined => (typeof value === 'string' && value !== '' ? value : undefined);

function time(value: unknown): Date | undefined {
  const date = typeof value === 'string' ? new Date(value) : undefined;
  return date === undefined || Number.isNaN(date.getTime()) ? undefined : date;
}
