import { fieldOf } from '@oncebox/message';
import type { ChannelModel } from 'amqplib';

/** The errors of AMQP for one channel too many: NOT_ALLOWED and CHANNEL_ERROR. */
const OF_LIMIT: ReadonlySet<unknown> = new Set([530, 504]);

/**
 * Tells a limit of channels from an outage. Call it when the connection is made: amqplib does not
 * keep the error with which a connection has ended.
 *
 * @returns whether an error of opening one more channel on the connection means that no further
 *   channel is allowed. The broker closes the connection for the limit of a user. amqplib itself
 *   refuses a channel over the number that client and broker have agreed.
 */
export function watchChannelLimit(connection: ChannelModel): (error: unknown) => boolean {
  let isOpen = true;
  let code: unknown;
  const onEnd = (error?: Error): void => {
    isOpen = false;
    code ??= fieldOf(error, 'code');
  };
  connection.once('error', onEnd);
  connection.once('close', onEnd);
  return (error) => {
    const own = code ?? fieldOf(error, 'code');
    // A code of amqplib or of the broker that is none of these, or our own deadline: an outage.
    return own === undefined ? isOpen : OF_LIMIT.has(own);
  };
}
