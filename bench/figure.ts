import type { Testbed } from './testbed.ts';

/** What one run of one case measured. */
export interface Sample {
  /** By name and unit: `messages/s`, `peak MB`, `p99 ms`. */
  readonly metrics: Readonly<Record<string, number>>;
  /** Messages or effects that are missing, and effects that are there twice. With one of them the sample does not count. */
  readonly lost: number;
  /** Copies on the wire beyond the first; allowed, as delivery is at least once. */
  readonly duplicates: number;
}

/** One thing to measure; each repeat runs every case once, so that a noisy minute touches all of them alike. */
export interface Case {
  readonly name: string;
  run(bed: Testbed): Promise<Sample>;
}

/** A metric of one case beside the same metric of another, of the same repeat. */
export interface Comparison {
  readonly of: string;
  readonly to: string;
  readonly metric: string;
  /** The least ratio that is good enough; without it the ratio is only stated. */
  readonly atLeast?: number;
}

export interface Bound {
  readonly of: string;
  readonly metric: string;
  readonly atMost: number;
}

export interface Figure {
  readonly name: string;
  readonly cases: readonly Case[];
  readonly comparisons: readonly Comparison[];
  readonly bounds: readonly Bound[];
}

/** How much each case does. */
export interface Sizes {
  /** Messages of one drain. */
  readonly drain: number;
  /** Of the naive relay, whose rate does not depend on how many there are. */
  readonly naive: number;
  readonly worker: number;
  /** Rows that are pending when a drain begins, for the figure `scale`; the least first. */
  readonly pending: readonly number[];
  readonly hotKey: number;
  readonly apiSeconds: number;
  readonly endToEndSeconds: number;
  readonly idleSeconds: number;
}

export const FULL: Sizes = {
  drain: 100_000,
  naive: 3_000,
  worker: 50_000,
  pending: [10_000, 100_000, 1_000_000],
  hotKey: 50_000,
  apiSeconds: 8,
  endToEndSeconds: 20,
  idleSeconds: 10,
};

/** Two minutes for all: enough to see that everything works, too little to believe a number. */
export const QUICK: Sizes = {
  drain: 5_000,
  naive: 300,
  worker: 2_000,
  pending: [2_000, 20_000],
  hotKey: 500,
  apiSeconds: 1,
  endToEndSeconds: 2,
  idleSeconds: 3,
};

/** The value below which this share of them lies; NaN of none. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

export const median = (values: readonly number[]): number => {
  const middle = (values.length - 1) / 2;
  const sorted = values.toSorted((a, b) => a - b);
  return ((sorted[Math.floor(middle)] ?? Number.NaN) + (sorted[Math.ceil(middle)] ?? Number.NaN)) / 2;
};
