import { type ConsumeMessage, IllegalOperationError } from 'amqplib';
import type { LiveChannel } from './channel.ts';
import { signal } from './signals.ts';

/**
 * How long a channel stays open after the last message was settled. A quorum queue takes
 * acknowledgements in batches (of 32, when many come at once), and the broker forgets those it
 * still holds when the channel closes: of 100 given in one go up to 67 were lost on RabbitMQ 3.10
 * and 4.3, none after 20 ms. AMQP confirms no acknowledgement, so there is nothing to wait for but
 * time.
 */
export const FLUSH_MS = 300;

/** The acknowledgements of one channel, of which every delivery must be told. */
export interface Acks {
  /** A message has come. */
  expect(message: ConsumeMessage): void;
  /** It is settled. */
  ack(message: ConsumeMessage): void;
  /** The broker is to move it to the dead queue. */
  reject(message: ConsumeMessage): void;
  /** It goes back to its queue. */
  giveBack(message: ConsumeMessage): void;
}

/**
 * Gathers what is acknowledged in one turn of the loop, a batch as a rule, into as few frames as
 * its order allows: one for all messages up to the oldest that is not settled, and one for each
 * behind it. amqplib makes a system call of each frame.
 */
export function openAcks(consumer: string, { channel, closed }: Pick<LiveChannel, 'channel' | 'closed'>): Acks {
  const unsettled = new Set<number>(); // delivery tags, which rise
  let settled: ConsumeMessage[] = [];

  function flush(): void {
    const messages = settled;
    settled = [];
    if (closed.aborted) return; // the broker has taken all of them back
    try {
      send(messages);
    } catch (error) {
      // It is being closed, and the broker takes back what it was not told of. Nobody else could
      // catch this.
      if (!(error instanceof IllegalOperationError)) throw error;
    }
  }

  function send(messages: readonly ConsumeMessage[]): void {
    const [oldest = Number.POSITIVE_INFINITY] = unsettled;
    let upTo: ConsumeMessage | undefined;
    for (const message of messages) {
      const { deliveryTag } = message.fields;
      if (deliveryTag > oldest) channel.ack(message);
      else if (upTo === undefined || deliveryTag > upTo.fields.deliveryTag) upTo = message;
    }
    if (upTo !== undefined) channel.ack(upTo, true);
    for (const { properties } of messages) {
      signal('oncebox:consumer:acked', { consumer, messageId: properties.messageId });
    }
  }

  return {
    expect({ fields }) {
      unsettled.add(fields.deliveryTag);
    },
    ack(message) {
      unsettled.delete(message.fields.deliveryTag);
      // After the promises of this turn: the verdicts on a batch are some.
      if (settled.length === 0) process.nextTick(flush);
      settled.push(message);
    },
    reject(message) {
      unsettled.delete(message.fields.deliveryTag);
      channel.reject(message, false);
    },
    giveBack(message) {
      unsettled.delete(message.fields.deliveryTag);
      channel.nack(message, false, true);
    },
  };
}
