import { collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import { type Consuming, countConsumers } from './consumers.ts';
import { gaugesOf, type SampleSet } from './gauges.ts';
import { countRelay } from './relay.ts';
import { countRequests, type Requests } from './requests.ts';
import { on } from './signals.ts';

/** The metrics of one process. Prometheus reads them through `render`; the signals of the packages write them. */
export interface Metrics {
  /** For metrics of your own. */
  readonly registry: Registry;
  readonly contentType: string;
  /** @param checks whether the process is ready, by dependency: shown as `oncebox_ready`. */
  render(checks: Readonly<Record<string, boolean>>): Promise<string>;
  /** Of a relay: its series begin at zero, so that the first failure counts. */
  relay(schemas: readonly string[]): void;
  /** Once, with all consumers of the process; asked again at each scrape. */
  consumers(read: () => readonly Consuming[]): void;
  /** Once, with the requester of the process. */
  requests(requests: Requests): void;
  /** @internal For `keepReading`. */
  readonly samples: SampleSet;
}

/** Milliseconds between two looks at the event loop: enough to see a loop that hangs, and cheap for a process that idles. */
const LOOP_PRECISION_MS = 50;

/** Once in a process, and first of all: a connection that was made before has told its state to nobody. */
export function createMetrics(): Metrics {
  const registry = new Registry();
  // process_… and nodejs_…, under the names that every dashboard knows; the delay of the event loop is among them.
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: LOOP_PRECISION_MS });
  const ready = new Gauge({
    name: 'oncebox_ready',
    help: '1 while what the process needs is there, by check, as /readyz has it.',
    labelNames: ['check'] as const,
    registers: [registry],
  });
  const connections = new Gauge({
    name: 'oncebox_broker_connection',
    help: '1 for the state that a connection to the broker is in: connected, connecting, blocked or closed.',
    labelNames: ['connection', 'state'] as const,
    registers: [registry],
  });
  on('oncebox:broker:connection', ({ connection, state }) => {
    for (const each of ['connected', 'connecting', 'blocked', 'closed'])
      connections.set({ connection, state: each }, each === state ? 1 : 0);
  });
  return {
    registry,
    contentType: registry.contentType,
    async render(checks) {
      for (const [check, ok] of Object.entries(checks)) ready.set({ check }, ok ? 1 : 0);
      return await registry.metrics();
    },
    relay: countRelay(registry),
    consumers: countConsumers(registry),
    requests: (requests) => countRequests(registry, requests),
    samples: gaugesOf(registry),
  };
}
