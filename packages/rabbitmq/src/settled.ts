import type { ConsumeMessage } from 'amqplib';
import { isHeard, type SettledSignal, signal } from './signals.ts';

/** Tells what became of a delivery. Its headers are read only for somebody who listens. */
export function tellSettled(consumer: string, { properties }: ConsumeMessage, result: SettledSignal['result']): void {
  if (!isHeard('oncebox:consumer:settled')) return;
  const time: unknown = properties.headers?.['cloudEvents:time'];
  const occurredAt = typeof time === 'string' && !Number.isNaN(Date.parse(time)) ? new Date(time) : undefined;
  signal('oncebox:consumer:settled', { consumer, result, occurredAt });
}
