import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { LATENCIES, SECONDS, SIZES } from './buckets.ts';
import { on } from './signals.ts';

/** Queues are looked at every five seconds. */
const FRESH_MS = 15_000;

/** A consumer of this process, as it is now. */
export interface Consuming {
  readonly name: string;
  readonly consuming: boolean;
}

/** What the consumers do with their messages. */
export function countConsumers(registry: Registry): (read: () => readonly Consuming[]) => void {
  const registers = [registry];
  const messages = new Counter({
    name: 'oncebox_consumer_messages_total',
    help: 'Deliveries by what became of them: handled, duplicate, retried, dead, held (by an ordered consumer), skipped (history).',
    labelNames: ['consumer', 'result'] as const,
    registers,
  });
  const latency = new Histogram({
    name: 'oncebox_consumer_latency_seconds',
    help: "From the row in the outbox, by its database's clock, until the message is handled, by this process's.",
    labelNames: ['consumer'] as const,
    buckets: LATENCIES,
    registers,
  });
  const handling = new Histogram({
    name: 'oncebox_consumer_handling_seconds',
    help: 'Handling of the messages that came together, their transaction included.',
    labelNames: ['consumer'] as const,
    buckets: SECONDS,
    registers,
  });
  const batches = new Histogram({
    name: 'oncebox_consumer_batch_messages',
    help: 'Messages that were handled together.',
    labelNames: ['consumer'] as const,
    buckets: SIZES,
    registers,
  });
  const depths = new Map<string, { consumer: string; queue: string; messages: number; at: number }>();
  new Gauge({
    name: 'oncebox_consumer_queue_messages',
    help: 'Messages that are ready in a queue of the consumer, its dead queue and the one for what is set aside included.',
    labelNames: ['consumer', 'queue'] as const,
    registers,
    collect() {
      this.reset();
      // What was seen before the broker went says nothing about now.
      for (const { consumer, queue, messages, at } of depths.values())
        if (performance.now() - at < FRESH_MS) this.set({ consumer, queue }, messages);
    },
  });

  on('oncebox:consumer:settled', ({ consumer, result, occurredAt }) => {
    messages.inc({ consumer, result });
    // Two clocks: where they differ by more than it took, it took nothing.
    if (result === 'handled' && occurredAt !== undefined)
      latency.observe({ consumer }, Math.max(0, Date.now() - occurredAt.getTime()) / 1_000);
  });
  on('oncebox:inbox:worked', (worked) => {
    handling.observe({ consumer: worked.consumer }, worked.seconds);
    batches.observe({ consumer: worked.consumer }, worked.messages);
  });
  on('oncebox:consumer:depth', (depth) => depths.set(depth.queue, { ...depth, at: performance.now() }));

  return (read) => {
    // As in countRelay: the first failure must be one.
    for (const { name: consumer } of read())
      for (const result of ['handled', 'duplicate', 'retried', 'dead', 'held', 'skipped'])
        messages.inc({ consumer, result }, 0);
    new Gauge({
      name: 'oncebox_consumer_consuming',
      help: '1 while the broker sends the consumer messages.',
      labelNames: ['consumer'] as const,
      registers,
      collect() {
        for (const { name, consuming } of read()) this.set({ consumer: name }, consuming ? 1 : 0);
      },
    });
  };
}
