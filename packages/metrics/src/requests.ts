import { Counter, Gauge, type Registry } from 'prom-client';

/** A requester of @oncebox/rabbitmq, or what counts as it does. */
export interface Requests {
  readonly pending: number;
  readonly counts: Readonly<Record<'late' | 'second' | 'unmatched', number>>;
}

export function countRequests(registry: Registry, requests: Requests): void {
  const registers = [registry];
  new Gauge({
    name: 'oncebox_requests_pending',
    help: 'Requests that wait for their answer.',
    registers,
    collect() {
      this.set(requests.pending);
    },
  });
  new Counter({
    name: 'oncebox_replies_surplus_total',
    help: 'Answers that nobody waited for: late, second (to what was answered), unmatched (to nothing that is known).',
    labelNames: ['kind'] as const,
    registers,
    collect() {
      // The requester counts from its start, as a counter does.
      this.reset();
      for (const [kind, count] of Object.entries(requests.counts)) this.inc({ kind }, count);
    },
  });
}
