/** Stable codes of this package; each has a line in docs/errors.md. */
export type SagaErrorCode = 'ONCEBOX_INVALID_SAGA' | 'ONCEBOX_UNKNOWN_STEP';

export class SagaError extends Error {
  override readonly name = 'SagaError';
  readonly code: SagaErrorCode;

  constructor(code: SagaErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}
