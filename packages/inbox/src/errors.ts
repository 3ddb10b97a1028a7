/** Stable codes of this package; each has a line in docs/errors.md. */
export type InboxErrorCode = 'ONCEBOX_INVALID_CONSUMER';

/** A consumer that could not work as it is defined. */
export class InboxError extends Error {
  override readonly name = 'InboxError';
  readonly code: InboxErrorCode;

  constructor(code: InboxErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

/** Throw it in a handler when no further attempt can help: the message goes to the dead queue at once. */
export class NonRetryableError extends Error {
  override readonly name: string = 'NonRetryableError';
}
