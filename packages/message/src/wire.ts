import type { Lineage } from './contract.ts';
import type { DeadMessage } from './inbox.ts';
import { AGGREGATE_ID_CHARACTERS, isDatable, isOver, isVersion, utf8TextOf } from './limits.ts';
import { PARTITION_HEADER, REPLAY_HEADER } from './names.ts';
import { carried, exact, malformed, named, text } from './properties.ts';
import type { Uncounted } from './uncounted.ts';

/**
 * A committed message on its way to the broker: what a row says, and nothing of the contract it
 * came from.
 */
export interface OutgoingMessage {
  readonly id: string;
  readonly type: string;
  readonly version: number;
  readonly aggregateId: string;
  /**
   * Of its ordering key, as its outbox row says; what an ordered consumer's queues divide the keys
   * by.
   */
  readonly partition?: number;
  /** JSON text; sent byte for byte. */
  readonly payload: string;
  readonly lineage: Lineage;
  readonly exchange: string;
  readonly routingKey: string;
  /** Whether the broker must hand it back when no queue is bound for it. */
  readonly mandatory: boolean;
  /** From 1: one more than the broker has refused; for the span of the publish. */
  readonly attempt?: number;
  /** Name of the schema whose outbox it was in. */
  readonly source: string;
  /** When the writer's statement ran, by the database's clock. */
  readonly occurredAt: Date;
}

/** AMQP basic properties, as amqplib takes and gives them. */
export interface WireProperties {
  readonly persistent: true;
  readonly messageId: string;
  readonly type: string;
  readonly contentType: 'application/json';
  /** Seconds since 1970, as AMQP has it. */
  readonly timestamp: number;
  readonly appId: string;
  readonly correlationId?: string;
  readonly headers: Record<string, string | number>;
}

/**
 * Properties and headers of a message on the wire: CloudEvents 1.0 in the AMQP binding's binary
 * mode, beside AMQP's own fields. Few headers, because encoding them is most of what a publish
 * costs in Node.
 */
export function toWire(message: OutgoingMessage): { body: Buffer; properties: WireProperties } {
  const { lineage } = message;
  const headers: Record<string, string | number> = {
    'cloudEvents:specversion': '1.0',
    'cloudEvents:id': message.id,
    'cloudEvents:source': message.source,
    'cloudEvents:type': message.type,
    'cloudEvents:time': message.occurredAt.toISOString(),
    'cloudEvents:subject': message.aggregateId,
    schemaversion: message.version,
  };
  // Text: a headers exchange compares types too, and clients differ in which integer type they
  // send.
  if (message.partition !== undefined) headers[PARTITION_HEADER] = String(message.partition);
  if (lineage.traceparent !== undefined) headers['traceparent'] = lineage.traceparent;
  if (lineage.causationId !== undefined) headers['causationid'] = lineage.causationId;
  return {
    body: Buffer.from(message.payload, 'utf8'),
    properties: {
      persistent: true,
      messageId: message.id,
      type: message.type,
      contentType: 'application/json',
      timestamp: Math.floor(message.occurredAt.getTime() / 1000),
      appId: message.source,
      ...(lineage.correlationId === undefined ? {} : { correlationId: lineage.correlationId }),
      headers,
    },
  };
}

/**
 * A message as it came from the broker, checked for what every handler needs and not yet against a
 * contract.
 */
export interface Received {
  readonly id: string;
  readonly type: string;
  readonly version: number;
  /** The body's exact text. */
  readonly payload: string;
  readonly lineage: Lineage;
  /** The ordering key's id, where the sender gave one. */
  readonly aggregateId: string | undefined;
  readonly source: string | undefined;
  readonly occurredAt: Date | undefined;
  /** The key it was first published with, also after retries. */
  readonly routingKey: string;
  /** Set for a message that was sent again from the log: history, and no news. */
  readonly replayed?: true;
  /**
   * What it takes to keep the message and to read it again; given to the inbox of an ordered
   * consumer.
   */
  readonly original?: DeadMessage;
  /**
   * How often it was delivered before and not settled; given to the inbox of an ordered consumer.
   */
  readonly deliveredBefore?: number;
}

/** What amqplib knows of a delivery, as far as it matters here. */
export interface Delivery {
  readonly content: Buffer;
  readonly routingKey: string;
  readonly properties: {
    readonly messageId?: unknown;
    readonly type?: unknown;
    readonly appId?: unknown;
    readonly correlationId?: unknown;
    readonly headers?: Readonly<Record<string, unknown>> | undefined;
  };
}

/**
 * Reads a delivery.
 *
 * Of its lineage it leaves out what a message that is caused by this one could not carry on.
 *
 * @throws MessageError ONCEBOX_MALFORMED_MESSAGE without an id, a type or a version: such a message
 *   cannot be told from its duplicates or matched to a handler. And for an id, type, key or body
 *   that is not UTF-8: it would be handled altered, or taken for a duplicate of another. Such
 *   messages are dead: never "processed anyway".
 */
export function fromWire({ content, properties, routingKey }: Delivery): Received {
  const headers = properties.headers ?? {};
  const id = named('messageId', properties.messageId);
  const type = named('type', properties.type);
  const version = headers['schemaversion'];
  if (!isVersion(version)) throw malformed('The message has no schemaversion header that is a version');
  const aggregateId = text(headers['cloudEvents:subject']);
  if (aggregateId !== undefined && isOver(exact('cloudEvents:subject', aggregateId), AGGREGATE_ID_CHARACTERS))
    throw malformed(`The cloudEvents:subject is over ${AGGREGATE_ID_CHARACTERS} characters`);
  const payload = utf8TextOf(content);
  if (payload === undefined) throw malformed('The body is not UTF-8; it is kept as it came');
  const time = new Date(text(headers['cloudEvents:time']) ?? '');
  const lineage: { -readonly [K in keyof Lineage]: Lineage[K] } = {};
  const correlationId = carried(properties.correlationId);
  const causationId = carried(headers['causationid']);
  const traceparent = carried(headers['traceparent']);
  if (correlationId !== undefined) lineage.correlationId = correlationId;
  if (causationId !== undefined) lineage.causationId = causationId;
  if (traceparent !== undefined) lineage.traceparent = traceparent;
  return {
    id,
    type,
    version,
    payload,
    lineage,
    aggregateId,
    source: carried(properties.appId),
    occurredAt: isDatable(time) ? time : undefined,
    routingKey: exact('routing key', routingKey),
    ...(headers[REPLAY_HEADER] === undefined ? {} : { replayed: true }),
  };
}

/**
 * What one attempt at a message came to, as the inbox tells the broker's side: `handled` and
 * `duplicate` are acknowledged, and so are `skipped`, history that its handler does not take, and
 * `held`, which an ordered consumer has in its own store, to be handled later (`dead`: as a dead
 * letter at once); `retry` comes back later and counts; `dead` is given up at once; `unavailable`
 * is an outage of what the handler stands on: nothing is counted, consumption pauses.
 */
export type Verdict =
  | { readonly kind: 'handled' | 'duplicate' | 'skipped' }
  | { readonly kind: 'held'; readonly failure?: Error; readonly dead?: boolean }
  | {
      readonly kind: 'retry' | 'dead' | 'unavailable';
      readonly error: Error;
      /** Set when no attempt has failed: the message waits and comes back. */
      readonly uncounted?: Uncounted;
    };
