import type { ConsumeMessage } from 'amqplib';
import type { Sending } from './confirms.ts';

const ATTEMPTS = 'x-oncebox-attempts';
const ROUTING_KEY = 'x-oncebox-routing-key';
const FIRST_FAILURE = 'x-oncebox-first-failure';
const LAST_FAILURE = 'x-oncebox-last-failure';
const CONSUMER = 'x-oncebox-consumer';
const REASON = 'x-oncebox-reason';

/**
 * Headers that are not the sender's words but the broker's notes on one copy's way, and `CC`, which would send our copy to
 * other queues as well. RabbitMQ drops CC when it dead-letters, for the same reason.
 */
const NOT_COPIED: ReadonlySet<string> = new Set(['x-death', 'x-delivery-count', 'x-acquired-count', 'CC']);
const isCopied = ([name]: [string, unknown]): boolean => !NOT_COPIED.has(name) && !/^x-(first|last)-death-/.test(name);

/** How many attempts at this message have failed before this delivery, by our own count; a crash or an outage is none. */
export function failedAttempts({ properties }: ConsumeMessage): number {
  const value: unknown = properties.headers?.[ATTEMPTS];
  return typeof value === 'number' && value > 0 ? value : 0;
}

/** The key that the message was first published with. */
export function originalRoutingKey({ properties, fields }: ConsumeMessage): string {
  const value: unknown = properties.headers?.[ROUTING_KEY];
  return typeof value === 'string' ? value : fields.routingKey;
}

/**
 * The same message for a retry queue or the dead queue, with a record of its failures.
 *
 * `expiration` is left out, because it would make the copy vanish from the dead queue, and `userId`, which the broker compares
 * with the sender's.
 */
export function copyTo(
  queue: string,
  message: ConsumeMessage,
  failure: { readonly consumer: string; readonly attempts: number; readonly error: Error },
): Sending {
  const { properties, content } = message;
  const now = new Date().toISOString();
  const original = Object.fromEntries(Object.entries(properties.headers ?? {}).filter(isCopied));
  const given = {
    contentType: properties.contentType,
    contentEncoding: properties.contentEncoding,
    priority: properties.priority,
    correlationId: properties.correlationId,
    replyTo: properties.replyTo,
    messageId: properties.messageId,
    timestamp: properties.timestamp,
    type: properties.type,
    appId: properties.appId,
  };
  return {
    exchange: '',
    routingKey: queue,
    body: content,
    options: {
      ...given,
      persistent: true,
      mandatory: true,
      headers: {
        ...original,
        [ROUTING_KEY]: originalRoutingKey(message),
        [ATTEMPTS]: failure.attempts,
        [CONSUMER]: failure.consumer,
        [FIRST_FAILURE]: original[FIRST_FAILURE] ?? now,
        [LAST_FAILURE]: now,
        [REASON]: classOf(failure.error),
      },
    },
  };
}

/** `TypeError`, `MessageError ONCEBOX_INVALID_PAYLOAD`. Not the message of an error, which may quote personal data. */
export function classOf(error: Error): string {
  const code: unknown = Reflect.get(error, 'code');
  return typeof code === 'string' ? `${error.name} ${code}` : error.name;
}
