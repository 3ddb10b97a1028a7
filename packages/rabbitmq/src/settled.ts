import { isDatable, REPLAY_HEADER } from '@oncebox/message';
import type { ConsumeMessage } from 'amqplib';
import { isHeard, type SettledSignal, signal } from './signals.ts';

/** Tells what became of a delivery. Its headers are read only for somebody who listens. */
export function tellSettled(consumer: string, { properties }: ConsumeMessage, result: SettledSignal['result']): void {
  if (!isHeard('oncebox:consumer:settled')) return;
  const { 'cloudEvents:time': time, [REPLAY_HEADER]: replayed } = properties.headers ?? {};
  // History is late on purpose: nobody's delivery took that long.
  const at = new Date(replayed === undefined && typeof time === 'string' ? time : '');
  signal('oncebox:consumer:settled', { consumer, result, occurredAt: isDatable(at) ? at : undefined });
}
