import type { readRebuilds } from '@oncebox/event-store';
import { type ConsumerProblem, type DeadLetterCounts, PROBLEM_CODES } from '@oncebox/inbox';
import type { OutboxReading } from '@oncebox/outbox';
import type { countSagas } from '@oncebox/saga';
import type { Sample } from './gauges.ts';

/** Types of messages with series of their own; a writer in plain SQL can put anything into the column. */
const TYPES = 100;

/** @param named the types that have series of their own, for the caller to keep from one reading to the next: it grows to a hundred. */
export function outboxSamples(
  schema: string,
  { messages, capped }: Omit<OutboxReading, 'oldestPublishedSeconds'>,
  named: Set<string>,
): Sample[] {
  for (const { type } of messages) if (named.size < TYPES) named.add(type);
  const groups = Map.groupBy(messages, ({ type, state }) => `${state} ${named.has(type) ? type : 'other'}`);
  return [
    ...Array.from(groups.values()).flatMap((group): Sample[] => {
      const [first] = group;
      if (first === undefined) return [];
      const labels = { schema, type: named.has(first.type) ? first.type : 'other', state: first.state };
      const value = group.reduce((sum, { count }) => sum + count, 0);
      const oldest = Math.max(...group.map(({ oldestSeconds }) => oldestSeconds));
      return [
        { gauge: 'oncebox_outbox_messages', labels, value },
        { gauge: 'oncebox_outbox_oldest_seconds', labels, value: oldest },
      ];
    }),
    ...(['pending', 'held', 'parked', 'released'] as const).map(
      (state): Sample => ({
        gauge: 'oncebox_outbox_capped',
        labels: { schema, state },
        value: capped.includes(state) ? 1 : 0,
      }),
    ),
  ];
}

/** @param oldestSeconds null for a table in which nothing waits to be forgotten. */
export const retentionSample = (
  schema: string,
  table: string,
  oldestSeconds: number | null,
  keepHours: number,
): Sample => ({
  gauge: 'oncebox_retention_overdue_seconds',
  labels: { schema, table },
  value: Math.max(0, (oldestSeconds ?? 0) - keepHours * 3_600),
});

export const deadLetterSamples = (schema: string, { consumers, capped }: DeadLetterCounts): Sample[] => [
  ...consumers.flatMap(({ consumer, ...counts }) =>
    (['dead', 'replay'] as const).map(
      (state): Sample => ({
        gauge: 'oncebox_dead_letters',
        labels: { schema, consumer, state },
        value: counts[state],
      }),
    ),
  ),
  { gauge: 'oncebox_dead_letters_capped', labels: { schema }, value: capped ? 1 : 0 },
];

/** A series for each code, 0 too, so that an alert resolves. */
export const problemSamples = (schema: string, problems: readonly ConsumerProblem[]): Sample[] =>
  PROBLEM_CODES.map((code) => ({
    gauge: 'oncebox_problems',
    labels: { schema, code },
    value: problems.filter((problem) => problem.code === code).length,
  }));

export function sagaSamples(schema: string, { sagas, capped }: Awaited<ReturnType<typeof countSagas>>): Sample[] {
  const counted = sagas.flatMap(({ name, state, count, oldestSeconds }): Sample[] => {
    const labels = { schema, saga: name, state };
    const counts: Sample = { gauge: 'oncebox_sagas', labels, value: count };
    return oldestSeconds === null
      ? [counts]
      : [counts, { gauge: 'oncebox_sagas_oldest_seconds', labels, value: oldestSeconds }];
  });
  const caps = (['running', 'stuck', 'completed', 'compensated'] as const).map(
    (state): Sample => ({
      gauge: 'oncebox_sagas_capped',
      labels: { schema, state },
      value: capped.includes(state) ? 1 : 0,
    }),
  );
  return [...counted, ...caps];
}

export const rebuildSamples = (schema: string, rebuilds: Awaited<ReturnType<typeof readRebuilds>>): Sample[] =>
  rebuilds.flatMap(({ name, done, total, running }): Sample[] => [
    { gauge: 'oncebox_projection_rebuild_streams', labels: { schema, projection: name, count: 'done' }, value: done },
    { gauge: 'oncebox_projection_rebuild_streams', labels: { schema, projection: name, count: 'total' }, value: total },
    { gauge: 'oncebox_projection_rebuild_running', labels: { schema, projection: name }, value: running ? 1 : 0 },
  ]);
