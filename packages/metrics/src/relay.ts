import { Counter, Histogram, type Registry } from 'prom-client';
import { SECONDS, SIZES } from './buckets.ts';
import { on } from './signals.ts';

/** What the relay does with the rows of an outbox, pass by pass. */
export function countRelay(registry: Registry): (schemas: readonly string[]) => void {
  const registers = [registry];
  const messages = new Counter({
    name: 'oncebox_relay_messages_total',
    help: 'Publishes by what became of them: confirmed, returned (no queue), nacked, unsendable (parked), unknown (an outage came between).',
    labelNames: ['schema', 'result'] as const,
    registers,
  });
  const failures = new Counter({
    name: 'oncebox_relay_failures_total',
    help: 'Looks, passes and cleanings that threw, by reason: "database away", "cannot settle" or "error".',
    labelNames: ['schema', 'reason'] as const,
    registers,
  });
  const busy = new Counter({
    name: 'oncebox_relay_busy_seconds_total',
    help: 'Time that lanes spent in passes with rows; divided by the number of lanes, their use.',
    labelNames: ['schema'] as const,
    registers,
  });
  const phases = new Histogram({
    name: 'oncebox_relay_phase_seconds',
    help: 'Duration of the phases of a pass: claim (until the rows are read), publish (until the last confirm), settle (commit included).',
    labelNames: ['schema', 'phase'] as const,
    buckets: SECONDS,
    registers,
  });
  const sizes = new Histogram({
    name: 'oncebox_relay_pass_messages',
    help: 'Messages that a pass tried to publish.',
    labelNames: ['schema'] as const,
    buckets: SIZES,
    registers,
  });

  on('oncebox:relay:passed', ({ schema, claimSeconds, publishSeconds, settleSeconds, ...results }) => {
    let sum = 0;
    for (const [result, count] of Object.entries(results)) {
      messages.inc({ schema, result }, count);
      sum += count;
    }
    sizes.observe({ schema }, sum);
    busy.inc({ schema }, claimSeconds + publishSeconds + settleSeconds);
    phases.observe({ schema, phase: 'claim' }, claimSeconds);
    phases.observe({ schema, phase: 'publish' }, publishSeconds);
    phases.observe({ schema, phase: 'settle' }, settleSeconds);
  });
  on('oncebox:relay:failed', ({ schema, reason }) => failures.inc({ schema, reason }));

  // A rate is known from the second value on: without zeros, the first failure of a process would be none.
  return (schemas) => {
    for (const schema of schemas) {
      busy.inc({ schema }, 0);
      for (const reason of ['database away', 'cannot settle', 'error']) failures.inc({ schema, reason }, 0);
      for (const result of ['confirmed', 'returned', 'nacked', 'unsendable', 'unknown'])
        messages.inc({ schema, result }, 0);
    }
  };
}
