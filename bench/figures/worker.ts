import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import type { Case, Comparison, Figure, Sample } from '../figure.ts';
import { runBare, startBare } from '../process.ts';
import { numbers, type Testbed } from '../testbed.ts';

/**
 * How fast one worker empties a full queue through `welcome-email`. Its limits: the same handler without an inbox, as many
 * messages a transaction, and a consumer that does nothing.
 */

const CONSUMER = 'welcome-email';
/** Messages that the broker may send ahead: the worker's own default. */
const PREFETCH = 400;

interface Form {
  readonly name: string;
  /** Messages of one transaction. */
  readonly batch: number;
  /** What makes the worker do so. */
  readonly environment: Readonly<Record<string, string>>;
}

const SINGLE: Form = { name: 'one transaction a message', batch: 1, environment: { WORKER_BATCH: '1' } };
/** As the worker is unless it is told otherwise. */
const BATCHES: Form = { name: 'batches of 100', batch: 100, environment: {} };
/** Each beside a handler without an inbox that works in the same batches; those after the first beside the first as well. */
const FORMS: readonly Form[] = [SINGLE, BATCHES];

const workerOf = (form: Form): string => `worker, ${form.name}`;
const handlerOf = (form: Form): string => `handler without inbox, ${form.name}`;
const BARE_CONSUME = 'bare consume';

/** Where the worker has declared its queues. */
const declared = new WeakSet<Testbed>();

/** A full queue, no effects yet, and nobody who consumes. */
async function fill(bed: Testbed): Promise<void> {
  await bed.clear();
  if (!declared.has(bed)) {
    const declaring = bed.worker();
    await declaring.ready();
    await declaring.stop();
    declared.add(bed);
  }
  const settings = { amqpUrl: bed.vhost.amqpUrl, source: 'shop', count: bed.sizes.worker, bytes: 0, to: CONSUMER };
  await runBare('publish.ts', { ...settings, windows: [1_000] }, z.unknown());
}

/** Effects that are committed, as an administrator sees them. The handler only inserts, so the greatest id is close to the count. */
const effects = (bed: Testbed) => numbers(bed.fulfilment, 'SELECT COUNT(*) AS count FROM emails');
const newest = (bed: Testbed) => numbers(bed.fulfilment, 'SELECT COALESCE(MAX(id), 0) AS id FROM emails');

/**
 * The rate of committed effects, from the first twentieth of them on, when the process has started and is warm, to the last.
 */
async function rateOfEffects(bed: Testbed): Promise<number> {
  const all = bed.sizes.worker;
  const deadline = Date.now() + 10 * 60_000;
  const until = async (reached: () => Promise<boolean>): Promise<void> => {
    while (!(await reached())) {
      if (Date.now() > deadline) throw new Error(`Not all of ${all} messages took effect in 10 minutes`);
      await sleep(10);
    }
  };
  await until(async () => ((await newest(bed))['id'] ?? 0) >= all / 20);
  const { count: first = 0 } = await effects(bed);
  const start = performance.now();
  await until(async () => ((await newest(bed))['id'] ?? 0) >= all && ((await effects(bed))['count'] ?? 0) >= all);
  return (all - first) / ((performance.now() - start) / 1_000);
}

/** Effects that are missing, and those that are there more than once. */
async function wrongEffects(bed: Testbed): Promise<{ missing: number; doubled: number }> {
  const { count = 0, different = 0 } = await numbers(
    bed.fulfilment,
    'SELECT COUNT(*) AS count, COUNT(DISTINCT message_id) AS different FROM emails',
  );
  return { missing: bed.sizes.worker - different, doubled: count - different };
}

async function throughWorker(bed: Testbed, { environment }: Form): Promise<Sample> {
  await fill(bed);
  let handled = 0;
  const worker = bed.worker(environment, (line) => {
    if (line.includes('Handling [')) handled += 1;
  });
  const rate = await rateOfEffects(bed);
  const peak = worker.peakMegabytes();
  const cpuSeconds = worker.cpuSeconds();
  await worker.stop();
  const { missing, doubled } = await wrongEffects(bed);
  return {
    metrics: { 'messages/s': rate, 'CPU µs/message': (cpuSeconds / handled) * 1e6, 'peak MB': peak },
    lost: missing + doubled,
    duplicates: handled - bed.sizes.worker,
  };
}

async function withoutInbox(bed: Testbed, { batch }: Form): Promise<Sample> {
  await fill(bed);
  const settings = { amqpUrl: bed.vhost.amqpUrl, databaseUrl: bed.schemas.fulfilment.url, queue: CONSUMER };
  const handler = startBare('handle.ts', { ...settings, prefetch: PREFETCH, batch }, z.unknown());
  const rate = await Promise.race([rateOfEffects(bed), handler.result.then(() => Number.NaN)]);
  await handler.stop();
  const { missing, doubled } = await wrongEffects(bed);
  // It has no inbox: doubled effects are what it is expected to make of duplicates.
  return { metrics: { 'messages/s': rate }, lost: missing, duplicates: doubled };
}

async function bareConsume(bed: Testbed): Promise<Sample> {
  await fill(bed);
  const settings = { amqpUrl: bed.vhost.amqpUrl, queue: CONSUMER, prefetch: PREFETCH, count: bed.sizes.worker };
  const result = await runBare('consume.ts', settings, z.object({ rate: z.number(), different: z.int() }));
  return { metrics: { 'messages/s': result.rate }, lost: bed.sizes.worker - result.different, duplicates: 0 };
}

const cases: Case[] = [
  { name: BARE_CONSUME, run: bareConsume },
  ...FORMS.flatMap((form) => [
    { name: handlerOf(form), run: (bed: Testbed) => withoutInbox(bed, form) },
    { name: workerOf(form), run: (bed: Testbed) => throughWorker(bed, form) },
  ]),
];

const metric = 'messages/s';
const comparisons = FORMS.flatMap((form): Comparison[] => [
  { of: workerOf(form), to: handlerOf(form), metric, atLeast: 0.7 },
  { of: workerOf(form), to: BARE_CONSUME, metric },
  ...(form === SINGLE ? [] : [{ of: workerOf(form), to: workerOf(SINGLE), metric, atLeast: 3 }]),
]);

export const worker: Figure = { name: 'worker', cases, comparisons, bounds: [] };
