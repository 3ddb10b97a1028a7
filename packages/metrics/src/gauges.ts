import { Gauge, type Registry } from 'prom-client';

/** What is read from a database: name, meaning and labels. */
const GAUGES = {
  oncebox_outbox_messages: {
    help: 'Rows of the outbox by type and state: pending, held (backoff, or behind one), parked, released. At least so many while capped.',
    labels: ['schema', 'type', 'state'],
  },
  oncebox_outbox_oldest_seconds: {
    help: 'Age of the oldest row of the outbox by type and state.',
    labels: ['schema', 'type', 'state'],
  },
  oncebox_outbox_capped: {
    help: '1 while there are more rows in that state than were counted.',
    labels: ['schema', 'state'],
  },
  oncebox_retention_overdue_seconds: {
    help: 'How much longer than its retention the oldest row of a table has been kept.',
    labels: ['schema', 'table'],
  },
  oncebox_dead_letters: {
    help: 'Dead letters by consumer and state: dead (a person has to decide), replay (the worker is to send them again).',
    labels: ['schema', 'consumer', 'state'],
  },
  oncebox_dead_letters_capped: { help: '1 while there are more dead letters than were counted.', labels: ['schema'] },
  oncebox_problems: {
    help: "What is wrong with consumers' names and bindings, by code; oncebox status says more.",
    labels: ['schema', 'code'],
  },
  oncebox_sagas: {
    help: 'Sagas by name and state: running, stuck, completed, compensated. At least so many while capped.',
    labels: ['schema', 'saga', 'state'],
  },
  oncebox_sagas_oldest_seconds: {
    help: 'Age of the oldest saga that has not ended.',
    labels: ['schema', 'saga', 'state'],
  },
  oncebox_sagas_capped: {
    help: '1 while there are more sagas in that state than were counted.',
    labels: ['schema', 'state'],
  },
  oncebox_projection_rebuild_streams: {
    help: "Streams of a projection's last rebuild: done, and total when it began.",
    labels: ['schema', 'projection', 'count'],
  },
  oncebox_projection_rebuild_running: {
    help: '1 while a rebuild is under way, or was cut short.',
    labels: ['schema', 'projection'],
  },
} as const satisfies Record<string, { readonly help: string; readonly labels: readonly string[] }>;

export interface Sample {
  readonly gauge: keyof typeof GAUGES;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** Who reads gauges of a schema. */
export interface Reader {
  readonly schema: string;
  readonly of: string;
  /** When it last could, on performance.now()'s clock; undefined while another process does. */
  readAt: number | undefined;
}

export interface SampleSet {
  /** Shows these instead of those that this reader has set before; none takes them back. */
  replace(reader: Reader, samples: readonly Sample[]): void;
}

export function gaugesOf(registry: Registry): SampleSet {
  const gauges = new Map<string, Gauge<string>>();
  const shown = new Map<Reader, readonly Sample[]>();
  new Gauge({
    name: 'oncebox_reading_age_seconds',
    help: 'Since the gauges of a schema were last read from its database, by the process whose turn it is.',
    labelNames: ['schema', 'of'] as const,
    registers: [registry],
    collect() {
      this.reset();
      for (const { schema, of, readAt } of shown.keys())
        if (readAt !== undefined) this.set({ schema, of }, (performance.now() - readAt) / 1_000);
    },
  });
  // Made when they are first set: a process that reads nothing shows nothing of it.
  const gaugeOf = (name: Sample['gauge']): Gauge<string> => {
    const { help, labels } = GAUGES[name];
    const gauge = gauges.get(name) ?? new Gauge({ name, help, labelNames: labels, registers: [registry] });
    gauges.set(name, gauge);
    return gauge;
  };
  return {
    replace(reader, samples) {
      for (const { gauge, labels } of shown.get(reader) ?? []) gaugeOf(gauge).remove(labels);
      for (const { gauge, labels, value } of samples) gaugeOf(gauge).set(labels, value);
      shown.set(reader, samples);
    },
  };
}
