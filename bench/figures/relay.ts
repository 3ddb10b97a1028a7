import { z } from 'zod';
import { drain, readAll } from '../drain.ts';
import type { Case, Figure, Sample } from '../figure.ts';
import { KEYS, seed } from '../messages.ts';
import { runBare } from '../process.ts';
import { numbers, type Testbed } from '../testbed.ts';

/** How fast one relay empties a full outbox; its limit is what one Node process can publish at all. */

const SIZES = [350, 2_000];
const MODES = [
  { mode: 'deleting', retentionHours: 0, atLeast: 0.8 },
  { mode: 'keeping', retentionHours: 24, atLeast: 0.65 },
] as const;
/** Unconfirmed messages of the bare publisher; the best of them is the limit. */
const WINDOWS = [500, 1_000, 2_000];

const rates = z.array(z.object({ window: z.number(), rate: z.number() }));
const rate = z.object({ rate: z.number() });

const drainOf = (bytes: number, mode: string): string => `drain ${bytes} B, ${mode}`;
const bareOf = (bytes: number): string => `bare publish ${bytes} B`;
const NAIVE = 'naive relay 350 B';

async function barePublish(bed: Testbed, bytes: number): Promise<Sample> {
  await bed.clear();
  const { drain: count } = bed.sizes;
  const settings = { amqpUrl: bed.vhost.amqpUrl, source: bed.schemas.shop.name, count, bytes, windows: WINDOWS };
  const results = await runBare('publish.ts', settings, rates);
  bed.note(results.map((result) => `window ${result.window}: ${Math.round(result.rate)}/s`).join(', '));
  // The last window's messages are left in the queue.
  const { missing, duplicates } = await readAll(bed, count, KEYS);
  return { metrics: { 'messages/s': Math.max(...results.map((result) => result.rate)) }, lost: missing, duplicates };
}

async function naiveRelay(bed: Testbed): Promise<Sample> {
  await bed.clear();
  const { naive: count } = bed.sizes;
  await seed(bed.shop, 0, count, 350);
  const settings = { amqpUrl: bed.vhost.amqpUrl, databaseUrl: bed.schemas.shop.adminUrl };
  const result = await runBare('naive-relay.ts', settings, rate);
  const { pending = Number.NaN } = await numbers(
    bed.shop,
    "SELECT COUNT(*) AS pending FROM outbox WHERE state = 'pending'",
  );
  const { missing, duplicates } = await readAll(bed, count, KEYS);
  return { metrics: { 'messages/s': result.rate }, lost: missing + pending, duplicates };
}

const cases: Case[] = [
  ...SIZES.flatMap((bytes) => [
    { name: bareOf(bytes), run: (bed: Testbed) => barePublish(bed, bytes) },
    ...MODES.map(({ mode, retentionHours }) => ({
      name: drainOf(bytes, mode),
      run: (bed: Testbed) => drain(bed, { rows: bed.sizes.drain, bytes, retentionHours }),
    })),
  ]),
  { name: NAIVE, run: naiveRelay },
];

const metric = 'messages/s';

export const relay: Figure = {
  name: 'relay',
  cases,
  comparisons: [
    ...SIZES.flatMap((bytes) =>
      MODES.map(({ mode, atLeast }) => ({ of: drainOf(bytes, mode), to: bareOf(bytes), metric, atLeast })),
    ),
    ...MODES.map(({ mode }) => ({ of: drainOf(350, mode), to: NAIVE, metric, atLeast: 5 })),
  ],
  bounds: cases
    .filter(({ name }) => name.startsWith('drain'))
    .map(({ name }) => ({ of: name, metric: 'peak MB', atMost: 150 })),
};
