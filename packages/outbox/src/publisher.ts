import type { OutgoingMessage } from '@oncebox/message';

/** What came of one publish. */
export type Outcome =
  /** The broker has it, and at least one queue does when the message was mandatory. Only this settles a row. */
  | { readonly kind: 'confirmed' }
  /** The broker has refused it or had no queue for it: later again, and it counts as an attempt. */
  | { readonly kind: 'returned' | 'nacked'; readonly reason: string }
  /** It can never be sent as it is. */
  | { readonly kind: 'unsendable'; readonly reason: string }
  /** An outage: it may have arrived or not. Later again, under the same id, and no attempt is counted. */
  | { readonly kind: 'unknown'; readonly reason: string };

/**
 * Where the relay publishes to: RabbitMQ behind `@oncebox/rabbitmq`, or another broker that confirms.
 *
 * The relay never has two messages of one ordering key in here at once, so an implementation may send in any order. It bounds
 * what is in flight and how long a confirm may take.
 */
export interface Publisher {
  /** Whether it makes sense to claim work now: connected, and not blocked. */
  readonly ready: boolean;
  /** Resolves once the outcome is known, or is known to be unknown. Never rejects. */
  publish(message: OutgoingMessage): Promise<Outcome>;
}
