/** Stable codes of this package; each has a line in docs/errors.md. */
export type ServiceErrorCode = 'ONCEBOX_INVALID_CONFIG';

/** The environment does not describe a process that can start. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly code: ServiceErrorCode = 'ONCEBOX_INVALID_CONFIG';
}

/**
 * What to call an error where its message may not go, because it can quote a password or a person's data: its code
 * (`ECONNREFUSED`, `ER_ACCESS_DENIED_ERROR`), or `failed` when it has none.
 */
export function reasonCode(error: unknown): string {
  const code: unknown = typeof error === 'object' && error !== null ? Reflect.get(error, 'code') : undefined;
  return typeof code === 'string' && /^[A-Z][A-Z0-9_]*$/.test(code) ? code : 'failed';
}
