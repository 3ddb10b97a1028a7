import { z } from 'zod';
import { type Bound, type Figure, percentile, type Sample } from '../figure.ts';
import { runBare } from '../process.ts';
import type { Testbed } from '../testbed.ts';

/** How long after its answer a request takes effect, at a fixed rate of requests: api, relay and worker together. */

const RATES = [{ rate: 100, p50: 20, p99: 60 }, { rate: 300, p50: 30, p99: 150 }, { rate: 500 }];

const result = z.object({
  posted: z.int(),
  accepted: z.int(),
  missing: z.int(),
  doubled: z.int(),
  answered: z.array(z.number()),
  tookEffect: z.array(z.number()),
});
const caseOf = (rate: number): string => `${rate} posts a second`;

async function through(bed: Testbed, rate: number): Promise<Sample> {
  await bed.clear();
  let handled = 0;
  const relay = bed.relay();
  const worker = bed.worker({}, (line) => {
    if (line.includes('"consumer":"welcome-email"') && line.includes('Handling [')) handled += 1;
  });
  const api = await bed.api();
  await Promise.all([relay.ready(), worker.ready()]);
  const { endToEndSeconds: seconds } = bed.sizes;
  const settings = {
    url: api.url,
    databaseUrl: bed.schemas.fulfilment.adminUrl,
    rate,
    warmUpSeconds: seconds / 5,
    seconds,
  };
  const measured = await runBare('open-loop.ts', settings, result);
  await Promise.all([api.stop(), relay.stop(), worker.stop()]);
  const { posted, accepted, missing, doubled, answered, tookEffect } = measured;
  return {
    metrics: {
      'effect p50 ms': percentile(tookEffect, 0.5),
      'effect p99 ms': percentile(tookEffect, 0.99),
      'effect max ms': percentile(tookEffect, 1),
      'answer p50 ms': percentile(answered, 0.5),
      'answer p99 ms': percentile(answered, 0.99),
    },
    lost: posted - accepted + missing + doubled,
    duplicates: handled - accepted,
  };
}

export const endToEnd: Figure = {
  name: 'end-to-end',
  cases: RATES.map(({ rate }) => ({ name: caseOf(rate), run: (bed) => through(bed, rate) })),
  comparisons: [],
  bounds: RATES.flatMap(({ rate, p50, p99 }): Bound[] =>
    p50 === undefined || p99 === undefined
      ? []
      : [
          { of: caseOf(rate), metric: 'effect p50 ms', atMost: p50 },
          { of: caseOf(rate), metric: 'effect p99 ms', atMost: p99 },
        ],
  ),
};
