import { context, propagation, ROOT_CONTEXT, type Span, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import type { Lineage } from './contract.ts';
import { classOf } from './failure.ts';
import type { OutgoingMessage, Verdict } from './wire.ts';

// The spans of a message's way, with the attributes of OpenTelemetry's conventions for messaging and RabbitMQ: by the API alone,
// which does nothing until the process registers an SDK. What a span says of an error is its class: messages quote data.

const tracer = trace.getTracer('@oncebox/message');

/**
 * Whether spans are made: whether an SDK is there, with a propagator for `traceparent`, as without one there is nothing to
 * continue and nothing to send on. Asked for each message, so that one without tracing costs no context and no span.
 */
export const isTracing = (): boolean => propagation.fields().includes('traceparent');

/** The same message with the span that is active now in its lineage; where there is none, the message itself. */
export function inActiveTrace<T extends { readonly lineage: Lineage }>(message: T): T {
  const carrier: { traceparent?: string } = {};
  propagation.inject(context.active(), carrier);
  const { traceparent } = carrier;
  return traceparent === undefined ? message : { ...message, lineage: { ...message.lineage, traceparent } };
}

/**
 * Publishes a message in a span whose parent is the one that wrote it, as its row says. It is sent with that of the publish.
 *
 * Not async: it runs for each message of a drain, and a promise more for each is felt.
 */
export function inPublishSpan<Result extends { readonly kind: string }>(
  message: OutgoingMessage,
  publish: (message: OutgoingMessage) => Promise<Result>,
): Promise<Result> {
  if (!isTracing()) return publish(message);
  const { exchange, routingKey, lineage } = message;
  const destination = destinationOf(exchange, routingKey);
  const parent = propagation.extract(ROOT_CONTEXT, lineage);
  const kind = SpanKind.PRODUCER;
  const attributes = {
    ...attributesOf(message.id, routingKey, lineage.correlationId),
    'messaging.operation.name': 'publish',
    'messaging.operation.type': 'send',
    'messaging.destination.name': destination,
    'oncebox.message.type': message.type,
    'oncebox.attempt': message.attempt,
  };
  const span = tracer.startSpan(`publish ${destination}`, { kind, attributes }, parent);
  return context.with(trace.setSpan(parent, span), async () => {
    try {
      const result = await publish(inActiveTrace(message));
      if (result.kind !== 'confirmed') fail(span, result.kind);
      return result;
    } finally {
      span.end();
    }
  });
}

/** A message that is about to be handled, as far as its span tells of it. */
export interface HandledMessage {
  readonly consumer: string;
  readonly id: unknown;
  readonly type: unknown;
  readonly correlationId: unknown;
  /** Empty where the message came by another way than an exchange of ours. */
  readonly exchange: string;
  readonly routingKey: string;
  /** From 1. */
  readonly attempt: number;
  /** Where its `traceparent` is. */
  readonly carrier: object;
}

/**
 * Handles a message in a span whose parent is that of its publish, also for a retry or a replay. Give the handler the message
 * `inActiveTrace`, so that what it is the cause of belongs to this span.
 *
 * @param describe called only while there is tracing.
 */
export function inHandleSpan<Result>(describe: () => HandledMessage, handle: () => Promise<Result>): Promise<Result> {
  if (!isTracing()) return handle();
  const { consumer, exchange, routingKey, attempt, carrier, ...message } = describe();
  const destination = destinationOf(exchange, routingKey, consumer);
  const parent = propagation.extract(ROOT_CONTEXT, carrier);
  const kind = SpanKind.CONSUMER;
  const attributes = {
    ...attributesOf(message.id, routingKey, message.correlationId),
    'messaging.operation.name': 'process',
    'messaging.operation.type': 'process',
    'messaging.destination.name': destination,
    'messaging.consumer.group.name': consumer,
    'oncebox.message.type': textOf(message.type),
    'oncebox.attempt': attempt,
  };
  const span = tracer.startSpan(`process ${destination}`, { kind, attributes }, parent);
  return context.with(trace.setSpan(parent, span), async () => {
    try {
      return await handle();
    } catch (error) {
      recordFailure(error);
      throw error;
    } finally {
      span.end();
    }
  });
}

/** Says on the active span what came of its message. */
export function recordVerdict(verdict: Verdict): void {
  const isDead = verdict.kind === 'held' && verdict.dead === true;
  trace.getActiveSpan()?.setAttribute('oncebox.verdict', isDead ? 'dead' : verdict.kind);
  const error = verdict.kind === 'held' ? verdict.failure : 'error' in verdict ? verdict.error : undefined;
  if (error !== undefined) recordFailure(error);
}

/** The same of work that has no verdict. */
export function recordFailure(error: unknown): void {
  const span = trace.getActiveSpan();
  if (span !== undefined) fail(span, classOf(error));
}

/** By its class alone, and not with `recordException`, which takes the message and the stack along. */
function fail(span: Span, errorClass: string): void {
  span.setAttribute('error.type', errorClass);
  span.setStatus({ code: SpanStatusCode.ERROR });
}

const textOf = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);

const attributesOf = (id: unknown, routingKey: string, correlationId: unknown) => ({
  'messaging.system': 'rabbitmq',
  'messaging.message.id': textOf(id),
  'messaging.message.conversation_id': textOf(correlationId),
  'messaging.rabbitmq.destination.routing_key': routingKey,
});

/** As the convention has it for RabbitMQ: what there is of exchange, routing key and queue. */
const destinationOf = (...parts: readonly string[]): string =>
  [...new Set(parts)].filter((part) => part !== '').join(':');
