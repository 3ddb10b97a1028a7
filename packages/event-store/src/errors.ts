/** Stable codes of this package; each has a line in docs/errors.md. */
export type EventStoreErrorCode = 'ONCEBOX_VERSION_CONFLICT' | 'ONCEBOX_UNREADABLE_EVENT' | 'ONCEBOX_INVALID_EVENT';

export class EventStoreError extends Error {
  override readonly name: string = 'EventStoreError';
  readonly code: EventStoreErrorCode;

  constructor(code: EventStoreErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** Somebody else has appended to the stream since it was loaded. Nothing was written; load it again and decide again. */
export class VersionConflictError extends EventStoreError {
  override readonly name = 'VersionConflictError';
  readonly expectedVersion: number;

  constructor(category: string, id: string, expectedVersion: number) {
    super(
      'ONCEBOX_VERSION_CONFLICT',
      `${category} ${id} is not at version ${expectedVersion} any more: load it again, decide again, and append that`,
    );
    this.expectedVersion = expectedVersion;
  }
}
