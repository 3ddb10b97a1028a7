import { setTimeout as sleep } from 'node:timers/promises';
import type { RowDataPacket } from 'mysql2/promise';
import type { Figure, Sample } from '../figure.ts';
import { numbers, status, type Testbed } from '../testbed.ts';

/** What a relay costs that has nothing to do: two schemas, nothing pending, nobody else on the server. */

/** Until it has slowed down, as it does when nothing comes. */
const SETTLE_MS = 6_000;
const NAME = 'relay of two schemas';

async function idling(bed: Testbed): Promise<Sample> {
  await bed.clear();
  const relay = bed.relay();
  await relay.ready();
  await sleep(SETTLE_MS);
  const statements = await commands(bed);
  const [questions = Number.NaN, cpu, start] = [
    await status(bed.shop, 'Questions'),
    relay.cpuSeconds(),
    performance.now(),
  ];
  await sleep(bed.sizes.idleSeconds * 1_000);
  const seconds = (performance.now() - start) / 1_000;
  const cpuShare = (relay.cpuSeconds() - cpu) / seconds;
  // The server counts the statement that asks, too.
  const asked = ((await status(bed.shop, 'Questions')) ?? Number.NaN) - questions - 1;
  const after = await commands(bed);
  const rates = [...after]
    .map(([name, count]) => [name, (count - (statements.get(name) ?? 0)) / seconds] as const)
    .filter(([, rate]) => rate >= 1);
  bed.note(rates.map(([name, rate]) => `${name} ${rate.toFixed(1)}/s`).join(', '));
  const peak = relay.peakMegabytes();
  await relay.stop();
  const { pending = Number.NaN } = await numbers(bed.shop, 'SELECT COUNT(*) AS pending FROM outbox');
  return {
    metrics: { 'CPU % of a core': cpuShare * 100, 'queries/s': asked / seconds, 'peak MB': peak },
    lost: pending,
    duplicates: 0,
  };
}

/** Statements by kind. */
async function commands(bed: Testbed): Promise<ReadonlyMap<string, number>> {
  const [rows] = await bed.shop.query<RowDataPacket[]>("SHOW GLOBAL STATUS LIKE 'Com\\_%'");
  return new Map(rows.map((row) => [String(row['Variable_name']), Number(row['Value'])]));
}

export const idle: Figure = {
  name: 'idle',
  cases: [{ name: NAME, run: idling }],
  comparisons: [],
  bounds: [
    { of: NAME, metric: 'CPU % of a core', atMost: 1 },
    { of: NAME, metric: 'queries/s', atMost: 60 },
  ],
};
