import { failureOf, isNonRetryable, MessageError, type Received, type Verdict } from '@oncebox/message';
import type { Consumer } from './consumer.ts';

/** An attempt that counts. */
export interface Failure {
  readonly kind: 'retry' | 'dead';
  readonly error: Error;
  /** This worker has no handler for the message: `explainUnknown` says what it is to its consumer. */
  readonly unknown?: boolean;
  /** Another worker of the consumer has one, and no attempt has failed. */
  readonly elsewhere?: boolean;
}

/** What an error in a handler, or in what prepares its work, comes to. */
export const failed = (thrown: unknown): Failure => ({
  kind: isNonRetryable(thrown) ? 'dead' : 'retry',
  error: failureOf(thrown),
});

/** Later rather than never: during a deployment the next worker may know it. */
export const unknownMessage = ({ name, types }: Consumer, { type, version }: Received): Failure => ({
  kind: 'retry',
  unknown: true,
  error: new MessageError(
    'ONCEBOX_UNKNOWN_MESSAGE',
    types.includes(type)
      ? `${name} does not read ${type} v${version}: deploy the worker that does, then replay what is dead by then`
      : `${name} handles no ${type}: add on(<its contract>, { handle }), or unbind its queue from that key`,
  ),
});

export const unreadable = (thrown: unknown): Failure => ({ kind: 'dead', error: failureOf(thrown) });
export const unavailable = (thrown: unknown): Verdict => ({ kind: 'unavailable', error: failureOf(thrown) });
