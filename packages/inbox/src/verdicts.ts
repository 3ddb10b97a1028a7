import { MessageError, type Received, type Verdict } from '@oncebox/message';
import type { Consumer } from './consumer.ts';
import { NonRetryableError } from './errors.ts';

/** An attempt that counts. */
export interface Failure {
  readonly kind: 'retry' | 'dead';
  readonly error: Error;
}

/** What an error in a handler, or in what prepares its work, comes to. */
export const failed = (error: unknown): Failure => ({
  kind: error instanceof NonRetryableError ? 'dead' : 'retry',
  error: asError(error),
});

/** Later rather than never: during a deployment the next worker may know it. */
export const unknownMessage = ({ name, types }: Consumer, { type, version }: Received): Failure => ({
  kind: 'retry',
  error: new MessageError(
    'ONCEBOX_UNKNOWN_MESSAGE',
    types.includes(type)
      ? `${name} does not read ${type} v${version}: deploy the worker that does, then replay what is dead by then`
      : `${name} handles no ${type}: add on(<its contract>, { handle }), or unbind its queue from that key`,
  ),
});

export const unreadable = (error: unknown): Failure => ({ kind: 'dead', error: asError(error) });
export const unavailable = (error: unknown): Verdict => ({ kind: 'unavailable', error: asError(error) });

const asError = (value: unknown): Error =>
  value instanceof Error ? value : new Error(`not an Error: ${typeof value}`);
