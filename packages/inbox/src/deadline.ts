import { fieldOf } from '@oncebox/message';
import { InboxError } from './errors.ts';

/** The time of one attempt at a message. Only what is done within `spend` uses it up, not the wait for a connection. */
export interface Allowance {
  /**
   * Runs a part of the attempt, and gives up on it when the time is used up; the part's own promise is then left alone.
   *
   * @throws HandlerDeadlineError
   */
  spend<T>(part: (signal: AbortSignal) => Promise<T>): Promise<T>;
}

/** ONCEBOX_HANDLER_DEADLINE */
export class HandlerDeadlineError extends InboxError {
  /** As the driver marks an error after which a connection cannot be used: the transaction may still be in a statement. */
  readonly fatal = true;

  constructor(consumer: string, milliseconds: number) {
    super(
      'ONCEBOX_HANDLER_DEADLINE',
      `A handler of ${consumer} did not end within ${milliseconds} ms: let it do less, or give defineConsumer a longer deadlineMs`,
    );
  }
}

/** By its code: `instanceof` asks what was thrown, which may be a Proxy that throws. */
export const isDeadline = (thrown: unknown): boolean => fieldOf(thrown, 'code') === 'ONCEBOX_HANDLER_DEADLINE';

export function allow(consumer: string, milliseconds: number): Allowance {
  let left = milliseconds;
  return {
    async spend(part) {
      const began = performance.now();
      const aborting = new AbortController();
      const deadline = Promise.withResolvers<never>();
      const timer = setTimeout(() => {
        const error = new HandlerDeadlineError(consumer, milliseconds);
        aborting.abort(error);
        deadline.reject(error);
      }, left);
      try {
        return await Promise.race([part(aborting.signal), deadline.promise]);
      } finally {
        clearTimeout(timer);
        left -= performance.now() - began;
      }
    },
  };
}
