import { fieldOf, type HandledMessage } from '@oncebox/message';
import type { ConsumeMessage } from 'amqplib';
import { failedAttempts, originalRoutingKey } from './notes.ts';

// What logs and spans say of a message.

export const idsOf = ({ properties: { messageId, type, correlationId } }: ConsumeMessage): object => ({
  messageId,
  type,
  correlationId,
});

/** What the span of its handling tells of a message. */
export const handledBy = (consumer: string, message: ConsumeMessage) => (): HandledMessage => {
  const { messageId: id, type, correlationId, headers = {} } = message.properties;
  const routingKey = originalRoutingKey(message);
  const attempt = failedAttempts(message, consumer) + 1;
  return {
    consumer,
    id,
    type,
    correlationId,
    exchange: message.fields.exchange,
    routingKey,
    attempt,
    carrier: headers,
  };
};

/**
 * The calls that led to an error, without its message: that may quote personal data, the duplicate
 * key of an INSERT for one.
 */
export function whereOf(error: unknown): string[] {
  const stack = fieldOf(error, 'stack');
  const lines = typeof stack === 'string' ? stack.split('\n') : [];
  return lines
    .map((line) => line.trim())
    .filter((line) => line.startsWith('at '))
    .slice(0, 5);
}
