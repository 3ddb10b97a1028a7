import { randomUUID } from 'node:crypto';
import { fromWire, LOG, type Received } from '@oncebox/message';
import type { Channel, ChannelModel, ConsumeMessage } from 'amqplib';
import { openChannel } from './channel.ts';
import type { ConfirmingChannel } from './confirms.ts';
import { BrokerError, isRefusedAs } from './errors.ts';
import { originalRoutingKey } from './notes.ts';

/** A message of the log. */
export interface Kept {
  readonly received: Received;
  readonly delivery: ConsumeMessage;
}

/** Most messages in hand, whatever their size. */
const PREFETCH = 250;

/**
 * The broker finds the place by its own clock, and a message's time is its database's: so far may
 * the two be apart.
 */
const CLOCKS_APART_MS = 5 * 60_000;

/**
 * Reads the log in its order, from its beginning or somewhat before a moment, up to where it ends
 * when this begins. What comes out next is not read before the caller is done with the last.
 *
 * A broker does not say where a stream ends, so a message of ours marks the place. It stays in the
 * log, and is no history.
 *
 * @throws BrokerError ONCEBOX_NO_LOG; ONCEBOX_BROKER_LOST
 */
export async function* readLog(
  connection: ChannelModel,
  sender: Pick<ConfirmingChannel, 'send'>,
  from: 'first' | Date,
): AsyncGenerator<readonly Kept[]> {
  const { channel, closed, ended, close } = await openChannel(connection);
  const end = randomUUID();
  let arrived: ConsumeMessage[] = [];
  let news = Promise.withResolvers<void>();
  const lost = Promise.withResolvers<never>();
  const lose = (why: string): void =>
    lost.reject(new BrokerError('ONCEBOX_BROKER_LOST', `The log cannot be read on: ${why}`));
  lost.promise.catch(() => undefined); // nobody may be waiting
  void ended.then((failure) => lose(failure?.message ?? 'the connection to the broker was lost'));
  try {
    await channel.prefetch(PREFETCH);
    await consumeLog(channel, from, (delivery) => {
      if (delivery === null) return lose('it was deleted');
      arrived.push(delivery);
      news.resolve();
    });
    const outcome = await sender.send(markOf(end));
    if (outcome.kind !== 'confirmed')
      throw new BrokerError('ONCEBOX_BROKER_LOST', `The log takes nothing: ${outcome.reason}`);
    for (;;) {
      await Promise.race([news.promise, lost.promise]);
      news = Promise.withResolvers();
      const batch = arrived;
      arrived = [];
      const mark = batch.findIndex(({ properties }) => properties.messageId === end);
      yield (mark < 0 ? batch : batch.slice(0, mark)).flatMap(toKept);
      if (mark >= 0) return;
      const last = batch.at(-1);
      if (closed.aborted) await lost.promise; // while the caller was busy: amqplib would throw an error of its own
      if (last !== undefined) channel.ack(last, true); // a stream forgets nothing by it: it lets the broker send more
    }
  } finally {
    await close();
  }
}

const markOf = (messageId: string) => ({
  exchange: '',
  routingKey: LOG,
  body: Buffer.alloc(0),
  options: { messageId, type: 'oncebox.end', persistent: true, mandatory: true },
});

async function consumeLog(
  channel: Channel,
  from: 'first' | Date,
  onMessage: (delivery: ConsumeMessage | null) => void,
): Promise<void> {
  // The type of the value matters to the broker: a number would be an offset.
  const seconds = from === 'first' ? 0 : Math.max(0, Math.floor((from.getTime() - CLOCKS_APART_MS) / 1_000));
  const offset = from === 'first' ? from : { '!': 'timestamp', value: seconds };
  try {
    await channel.consume(LOG, onMessage, { arguments: { 'x-stream-offset': offset } });
  } catch (error) {
    if (!isRefusedAs(404, error)) throw error;
    throw new BrokerError(
      'ONCEBOX_NO_LOG',
      `This broker has no ${LOG}. A relay with RELAY_LOG=on keeps one, from then on`,
    );
  }
}

/** What is no message of a relay's is no history: our marks, and what others may have put there. */
function toKept(delivery: ConsumeMessage): Kept[] {
  try {
    return [{ delivery, received: fromWire({ ...delivery, routingKey: originalRoutingKey(delivery) }) }];
  } catch {
    return [];
  }
}
