/** Stable codes of this package; each has a line in docs/errors.md. */
export type ServiceErrorCode = 'ONCEBOX_INVALID_CONFIG';

/** The environment does not describe a process that can start. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly code: ServiceErrorCode = 'ONCEBOX_INVALID_CONFIG';
}

/**
 * What to call an error where its message may not go, because it can quote a password or a person's data: its code
 * (`ECONNREFUSED`, `ER_ACCESS_DENIED_ERROR (1045)`), or `failed` when it has none. Of a connection that could not be had, the code
 * of what the server or the network said.
 */
export function reasonCode(error: unknown): string {
  if (typeof error !== 'object' || error === null) return 'failed';
  const code: unknown = Reflect.get(error, 'code');
  const errno: unknown = Reflect.get(error, 'errno');
  if (code === 'ONCEBOX_NO_CONNECTION') {
    const why = reasonCode(Reflect.get(error, 'cause'));
    return why === 'failed' ? code : why;
  }
  const name = typeof code === 'string' && /^[A-Z][A-Z0-9_]*$/.test(code) ? code : undefined;
  if (typeof errno !== 'number' || errno <= 0) return name ?? 'failed';
  return name === undefined ? `error ${errno}` : `${name} (${errno})`;
}
