import { fitsShortString } from '@oncebox/message';
import type { ConsumeMessage } from 'amqplib';

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
  /** 1 for a copy whose properties are in its body; see `wrap`. */
  wrapped: 'x-oncebox-wrapped',
  /** The hash of the copy that was set aside: what its stub among the dead letters is known by. */
  setAside: 'x-oncebox-set-aside',
} as const;
const NOTES: ReadonlySet<string> = new Set(Object.values(NOTE));
export const isNote = (header: string): boolean => NOTES.has(header);

// Whoever may publish to a queue can write these too. So each is read as what it may be at most,
// and is none otherwise: no note of another program may make more of a message than a message can
// be by itself.

/** No ladder of retries has more steps. */
const MOST_ATTEMPTS = 10_000;

/**
 * How many attempts at this message have failed before this delivery, by our own count; a crash or
 * an outage is none.
 *
 * @param most that may have been noted. More, or a note that is not for this consumer, is none of
 *   ours.
 */
export function failedAttempts({ properties }: ConsumeMessage, consumer: string, most = MOST_ATTEMPTS): number {
  const { [NOTE.attempts]: value, [NOTE.consumer]: owner }: Record<string, unknown> = properties.headers ?? {};
  const isOurs = owner === consumer && typeof value === 'number' && Number.isInteger(value);
  return isOurs && value > 0 && value <= most ? value : 0;
}

/**
 * The key that the message was first published with. A note that is no key is somebody else's, and
 * no column could hold it.
 */
export function originalRoutingKey({ properties, fields }: ConsumeMessage): string {
  const value: unknown = properties.headers?.[NOTE.routingKey];
  return fitsShortString(value) ? value : fields.routingKey;
}

/** By the broker's flag alone: a sender may have written its count. */
export const isFirstDelivery = ({ fields }: ConsumeMessage): boolean => !fields.redelivered;

/** By the broker's count, which has no entry for a first delivery. */
export function deliveriesBefore(message: ConsumeMessage): number {
  if (isFirstDelivery(message)) return 0;
  const count: unknown = message.properties.headers?.['x-delivery-count'];
  return typeof count === 'number' && count > 0 ? count : 0;
}

/** A time as our notes have it; anything else is none. */
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
export const isTime = (value: unknown): value is string =>
  typeof value === 'string' && TIME.test(value) && !Number.isNaN(Date.parse(value));
