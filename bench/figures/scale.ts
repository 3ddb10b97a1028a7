import { findWork } from '../../packages/outbox/src/claim.ts';
import { PARTITIONS } from '../../packages/outbox/src/row.ts';
import { type DrainOptions, drain } from '../drain.ts';
import { type Case, type Figure, median, type Sizes } from '../figure.ts';
import type { Testbed } from '../testbed.ts';

/** Whether the relay's rate depends on how much is pending, on a reader that keeps purge waiting, and on how many relays there are. */

const FROM_THE_START: readonly string[] = Array.from({ length: PARTITIONS }, () => '0');
const LOOKS = 50;

/** The relay's own statement for finding work, without the lower bounds that a running relay keeps. */
async function findWorkMs(bed: Testbed): Promise<number> {
  const times: number[] = [];
  for (let look = 0; look < LOOKS; look += 1) {
    const start = performance.now();
    await findWork(bed.shop, FROM_THE_START);
    times.push(performance.now() - start);
  }
  return median(times);
}

const of = (bed: Testbed, options: Pick<DrainOptions, 'rows'> & Partial<DrainOptions>) =>
  drain(bed, {
    bytes: 350,
    retentionHours: 0,
    look: async (when) => ({ [`find work ${when} ms`]: await findWorkMs(bed) }),
    ...options,
  });

async function underReader(bed: Testbed) {
  const reader = await bed.shop.getConnection();
  try {
    await reader.query('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
    await reader.query('START TRANSACTION WITH CONSISTENT SNAPSHOT');
    return await of(bed, { rows: bed.sizes.drain });
  } finally {
    await reader.rollback();
    reader.release();
  }
}

const pendingOf = (rows: number): string => `${rows.toLocaleString('en')} pending`;
/** As many rows as in the comparisons with it. */
const ONE = '1 relay';
const READER = '1 relay, REPEATABLE READ reader open';
const HOT_KEY = 'hot key';

const casesOf = ({ pending, drain: rows, hotKey }: Sizes): Case[] => [
  ...pending.map((each) => ({ name: pendingOf(each), run: (bed: Testbed) => of(bed, { rows: each }) })),
  { name: ONE, run: (bed) => of(bed, { rows }) },
  { name: READER, run: underReader },
  { name: '2 relays', run: (bed) => of(bed, { rows, relays: 2 }) },
  { name: '4 relays', run: (bed) => of(bed, { rows, relays: 4 }) },
  { name: HOT_KEY, run: (bed) => of(bed, { rows: hotKey, keys: 1 }) },
];

const metric = 'messages/s';

export function scale(sizes: Sizes): Figure {
  const cases = casesOf(sizes);
  const [least = 0] = sizes.pending;
  return {
    name: 'scale',
    cases,
    comparisons: [
      { of: pendingOf(Math.max(...sizes.pending)), to: pendingOf(least), metric, atLeast: 0.9 },
      { of: READER, to: ONE, metric, atLeast: 0.8 },
      { of: '2 relays', to: ONE, metric },
      { of: '4 relays', to: ONE, metric, atLeast: 0.9 },
      { of: HOT_KEY, to: ONE, metric },
    ],
    bounds: cases.map(({ name }) => ({ of: name, metric: 'peak MB', atMost: 150 })),
  };
}
