import type { Place } from '../support/invariants.ts';
import { endsOfHostileRows } from './hostile-rows.ts';
import type { Fate } from './innocents.ts';
import type { Outage } from './outages.ts';

/** What a run was, and what came of it. */

export interface Report {
  readonly seed: number;
  readonly seconds: number;
  readonly processes: number;
  readonly faults: Readonly<Record<string, number>>;
  readonly foreign: { readonly sent: number; readonly dead: Readonly<Record<string, number>> };
  readonly hostileRows: { readonly written: number; readonly ends: Readonly<Record<string, number>> };
  /** Time in which nobody could work. */
  readonly outageSeconds: number;
  readonly customers: number;
  readonly effects: number;
  readonly lost: number;
  readonly doubled: number;
  readonly boundSeconds: number;
  readonly late: number;
  readonly delays: { readonly p50: number; readonly p99: number; readonly longest: number };
  readonly leftOver: readonly string[];
}

export interface Run extends Pick<Report, 'seed' | 'seconds' | 'processes' | 'faults' | 'customers' | 'leftOver'> {
  readonly outages: readonly Outage[];
  readonly foreign: number;
  readonly rows: number;
  readonly fate: Fate;
  readonly boundMs: number;
}

export async function reportOf(place: Pick<Place, 'shop' | 'fulfilment'>, run: Run): Promise<Report> {
  const { outages, foreign, rows, fate, boundMs, ...same } = run;
  const seconds = (share: number): number => {
    const ms = fate.delaysMs[Math.min(fate.delaysMs.length - 1, Math.floor(share * fate.delaysMs.length))] ?? 0;
    return Math.round(ms) / 1_000;
  };
  const dead = await place.fulfilment(
    `SELECT LEFT(COALESCE(error_class, reason), 30) AS why, COUNT(*) AS n FROM dead_letters GROUP BY why ORDER BY n DESC LIMIT 8`,
  );
  const [twice] = await place.fulfilment(
    'SELECT COUNT(*) AS n FROM (SELECT message_id FROM emails GROUP BY message_id HAVING COUNT(*) > 1) t',
  );
  return {
    ...same,
    foreign: { sent: foreign, dead: Object.fromEntries(dead.map(({ why, n }) => [String(why), Number(n)])) },
    hostileRows: { written: rows, ends: await endsOfHostileRows(place.shop) },
    outageSeconds: Math.round(outages.reduce((sum, { from, to }) => sum + to - from, 0) / 1_000),
    effects: fate.delaysMs.length,
    lost: fate.lost.length,
    doubled: Number(twice?.['n']),
    boundSeconds: boundMs / 1_000,
    late: fate.late.length,
    delays: { p50: seconds(0.5), p99: seconds(0.99), longest: seconds(1) },
  };
}

/** For people. */
export function table(report: Report): string {
  const { delays, foreign, hostileRows } = report;
  const list = (counts: Readonly<Record<string, number>>) =>
    Object.entries(counts)
      .map(([what, n]) => `${n} ${what}`)
      .join(', ') || 'none';
  const lines = [
    ['faults', `${list(report.faults)}; ${report.processes} processes started`],
    ['foreign', `${foreign.sent} messages; dead letters of all: ${list(foreign.dead)}`],
    ['hostile rows', `${hostileRows.written}: ${list(hostileRows.ends)}`],
    [
      'innocents',
      `${report.customers} customers, ${report.effects} effects: lost ${report.lost}, doubled ${report.doubled}`,
    ],
    [
      'on time',
      `p50 ${delays.p50} s, p99 ${delays.p99} s, longest ${delays.longest} s; ${report.late} over the bound of ${report.boundSeconds} s`,
    ],
    ['excused', `${report.outageSeconds} s of outages that hit everybody`],
    ['left in queues', report.leftOver.join(', ') || 'nothing'],
  ];
  return lines.map(([name = '', text]) => `  ${name.padEnd(15)} ${text}`).join('\n');
}
