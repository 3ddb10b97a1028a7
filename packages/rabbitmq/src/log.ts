import { classOf, LOG } from '@oncebox/message';
import type { ChannelModel } from 'amqplib';
import { onChannelOfItsOwn } from './channel.ts';
import type { Sending } from './confirms.ts';
import { BrokerError } from './errors.ts';
import type { Logger } from './logger.ts';
import { NOTE } from './notes.ts';
import { declareLog, type LogRetention } from './topology.ts';

/**
 * Declares the log, if it can. A failure is no reason to publish nothing: if the log is there all
 * the same, with other settings or made by somebody else, it serves; if it is not, what would be
 * kept in it is held, and says so.
 */
export async function ensureLog(connection: ChannelModel, retention: LogRetention, logger: Logger): Promise<void> {
  try {
    await onChannelOfItsOwn(connection, (channel) => declareLog(channel, retention));
  } catch (error) {
    if (error instanceof BrokerError && error.code === 'ONCEBOX_TOPOLOGY_MISMATCH') {
      // Not the error's own advice, which is for queues that run empty: a log that is deleted is
      // history that is gone.
      const why = error.cause instanceof Error ? error.cause.message : '';
      logger.warn(
        { error: classOf(error) },
        `the log ${LOG} exists with other settings than RELAY_LOG_*, and is used as it is: restore them, or set a policy to keep less ` +
          `(docs/operations.md). Deleting it deletes the history. ${why}`,
      );
      return;
    }
    const known = error instanceof Error ? error : new Error(String(error));
    logger.error({ error: classOf(known) }, `the log ${LOG} could not be declared: ${known.message}`);
  }
}

/**
 * What is kept of a message that was published: the same, and the key that it was published with.
 */
export const keptAs = ({ routingKey, body, options }: Sending): Sending => ({
  exchange: '',
  routingKey: LOG,
  body,
  options: { ...options, mandatory: true, headers: { ...options.headers, [NOTE.routingKey]: routingKey } },
});
