import { QUOTES_NO_DATA } from './failure.ts';

/** Stable codes of this package; each has a line in docs/errors.md. */
export type MessageErrorCode =
  | 'ONCEBOX_INVALID_CONTRACT'
  | 'ONCEBOX_INVALID_PAYLOAD'
  | 'ONCEBOX_PAYLOAD_TOO_LARGE'
  | 'ONCEBOX_MESSAGE_TOO_LARGE'
  | 'ONCEBOX_INVALID_HEADERS'
  | 'ONCEBOX_MALFORMED_MESSAGE'
  | 'ONCEBOX_UNKNOWN_MESSAGE'
  | 'ONCEBOX_HANDLED_ELSEWHERE'
  | 'ONCEBOX_TYPE_REMOVED';

export interface Issue {
  /** Where in the payload, as `a.b.0`; empty for the payload itself. */
  readonly path: string;
  readonly message: string;
}

/** A message that breaks a rule of its contract or of the wire. Retrying the same message cannot help. */
export class MessageError extends Error {
  override readonly name = 'MessageError';
  readonly code: MessageErrorCode;
  readonly issues: readonly Issue[];

  constructor(code: MessageErrorCode, message: string, issues: readonly Issue[] = [], options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.issues = issues;
  }

  get [QUOTES_NO_DATA](): true {
    return true;
  }
}
