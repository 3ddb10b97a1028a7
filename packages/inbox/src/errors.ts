import { NON_RETRYABLE, QUOTES_NO_DATA } from '@oncebox/message';

/** Stable codes of this package; each has a line in docs/errors.md. */
export type InboxErrorCode =
  | 'ONCEBOX_INVALID_CONSUMER'
  | 'ONCEBOX_NO_IDENTITY'
  | 'ONCEBOX_HANDLER_DEADLINE'
  | 'ONCEBOX_HANDLER_CRASHED'
  | 'ONCEBOX_UNSTORABLE'
  | 'ONCEBOX_NOT_HELD'
  | 'ONCEBOX_PAYLOAD_UNAVAILABLE'
  | 'ONCEBOX_PAYLOAD_DIFFERS';

/** A consumer that could not work as it is defined, or a handler that took too long. */
export class InboxError extends Error {
  override readonly name = 'InboxError';
  readonly code: InboxErrorCode;

  constructor(code: InboxErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** A message that the database answers for, and does not take. Its own message names columns, limits and codes, and quotes nothing. */
export class UnstorableError extends InboxError {
  get [QUOTES_NO_DATA](): true {
    return true;
  }
}

/**
 * Throw it in a handler when no further attempt can help: the message is dead at once. The name of a class of your own that
 * extends it is the reason that its dead letter gives; the message of an error is not, because it may hold personal data.
 */
export class NonRetryableError extends Error {
  constructor(message?: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }

  /** What it is known by, because a process may have two copies of this class. */
  get [NON_RETRYABLE](): true {
    return true;
  }
}

/** The payload of a message is no longer kept by its writer: no later attempt finds it. */
export class PayloadExpiredError extends NonRetryableError {
  readonly code = 'ONCEBOX_PAYLOAD_EXPIRED';
}
