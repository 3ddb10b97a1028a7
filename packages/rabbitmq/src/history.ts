import { orderedQueues, PARTITION_HEADER, REPLAY_HEADER } from '@oncebox/message';
import type { ChannelModel } from 'amqplib';
import { ifThere } from './channel.ts';
import type { Sending } from './confirms.ts';
import { connectOnce } from './connect-once.ts';
import { copyOf, type Delivered } from './copies.ts';
import { BrokerError } from './errors.ts';
import { type Kept, readLog } from './log-reader.ts';
import type { Logger } from './logger.ts';
import { sendCopy } from './wrap.ts';

/**
 * The log, and the way from there to one consumer. Over one connection: when that breaks, all of it
 * fails.
 */
export interface History {
  /** See `readLog`. */
  read(from: 'first' | Date): AsyncGenerator<readonly Kept[]>;
  /**
   * Sends these to the consumer's own queue, marked as history. The messages of a key go in their
   * order, each when the one before is confirmed.
   *
   * @throws BrokerError ONCEBOX_NOT_REPLAYED; some of them may have been sent.
   */
  send(messages: readonly Kept[]): Promise<void>;
  /**
   * Messages that wait in the consumer's queue. @throws BrokerError ONCEBOX_NOT_REPLAYED when it
   * has none.
   */
  waiting(): Promise<number>;
  close(): Promise<void>;
}

export interface HistoryOptions {
  readonly urls: readonly string[];
  readonly consumer: string;
  /** Whether the consumer is, and so has several queues. */
  readonly ordered: boolean;
  readonly logger: Logger;
}

const WINDOW = 500;

/**
 * @throws BrokerError ONCEBOX_INVALID_BROKER_URL; ONCEBOX_BROKER_AWAY when no broker answers within
 * 10 s.
 */
export async function openHistory({ urls, consumer, ordered, logger }: HistoryOptions): Promise<History> {
  const { supervisor, connection, openSender } = await connectOnce({ urls, name: `replay to ${consumer}`, logger });
  const queues = ordered ? orderedQueues(consumer) : [consumer];
  try {
    const sender = await openSender(WINDOW);
    const sendOne = async ({ delivery }: Kept): Promise<void> => {
      const outcome = await sendCopy(sender, historyFor(queues, delivery));
      if (outcome.kind !== 'confirmed') throw new BrokerError('ONCEBOX_NOT_REPLAYED', outcome.reason);
    };
    return {
      read: (from) => readLog(connection, sender, from),
      async send(messages) {
        const keys = Map.groupBy(messages, ({ received }) => received.aggregateId ?? received.id);
        await Promise.all(
          keys.values().map(async (chain) => {
            for (const message of chain) await sendOne(message);
          }),
        );
      },
      waiting: () => depthOf(connection, queues),
      close: () => supervisor.close(),
    };
  } catch (error) {
    await supervisor.close();
    throw error;
  }
}

/**
 * By the same rule as the bindings of an ordered consumer; what has no partition goes to its first
 * queue there, too.
 */
export function historyFor(queues: readonly string[], delivery: Delivered): Sending {
  const partition = Number(delivery.properties.headers?.[PARTITION_HEADER] ?? 0);
  const queue = queues[partition % queues.length] ?? queues[0] ?? '';
  return copyOf(queue, delivery, { [REPLAY_HEADER]: 'true' });
}

async function depthOf(connection: ChannelModel, queues: readonly string[]): Promise<number> {
  let depth = 0;
  for (const queue of queues) {
    const found = await ifThere(connection, (channel) => channel.checkQueue(queue));
    if (found === undefined) {
      throw new BrokerError('ONCEBOX_NOT_REPLAYED', `There is no queue ${queue}: its worker declares it`);
    }
    depth += found.messageCount;
  }
  return depth;
}
