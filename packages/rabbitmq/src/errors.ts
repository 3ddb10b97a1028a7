import { classOf, fieldOf } from '@oncebox/message';

/** Stable codes of this package; each has a line in docs/errors.md. */
export type BrokerErrorCode =
  | 'ONCEBOX_INVALID_BROKER_URL'
  | 'ONCEBOX_BROKER_AWAY'
  | 'ONCEBOX_BROKER_CLOSED'
  | 'ONCEBOX_BROKER_LOST'
  | 'ONCEBOX_CONSUMER_NAME_TAKEN'
  | 'ONCEBOX_NO_EXCHANGE'
  | 'ONCEBOX_NOT_REPLAYED'
  | 'ONCEBOX_NO_LOG'
  | 'ONCEBOX_NO_RESPONDER'
  | 'ONCEBOX_REQUEST_FAILED'
  | 'ONCEBOX_REQUEST_TIMED_OUT'
  | 'ONCEBOX_TOO_MANY_REQUESTS'
  | 'ONCEBOX_TOPOLOGY_MISMATCH';

export class BrokerError extends Error {
  override readonly name = 'BrokerError';
  readonly code: BrokerErrorCode;

  constructor(code: BrokerErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/**
 * What a log line says of an error: its code where it has one (`ECONNREFUSED`, `404`), for
 * amqplib's handshake errors their text. Of a connection that a database did not give, the code and
 * the number of what the server said: the driver has no code for some.
 */
export function reasonOf(error: unknown): string {
  const code = fieldOf(error, 'code');
  const message = fieldOf(error, 'message');
  const cause = fieldOf(error, 'cause');
  if (code === 'ONCEBOX_NO_CONNECTION' && cause !== undefined) return reasonOf(cause);
  const errno = fieldOf(error, 'errno');
  if (typeof errno === 'number' && errno > 0) return `${typeof code === 'string' ? code : 'error'} (${errno})`;
  if (typeof code === 'string') return code;
  return typeof message === 'string' ? message : classOf(error);
}

/** Whether the broker has refused a call with this code of AMQP. */
export const isRefusedAs = (code: 403 | 404 | 406, error: unknown): error is Error =>
  error instanceof Error && Reflect.get(error, 'code') === code;
