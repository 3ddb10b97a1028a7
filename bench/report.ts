import { type Figure, median, type Sample } from './figure.ts';

export interface Spread {
  readonly median: number;
  readonly least: number;
  readonly most: number;
}

export interface CaseResult {
  readonly figure: string;
  readonly case: string;
  readonly metrics: Readonly<Record<string, Spread>>;
  /** Of all repeats. */
  readonly lost: number;
  readonly duplicates: number;
  readonly samples: readonly Sample[];
}

/** A ratio or a bound, and what it should be. */
export interface Verdict {
  readonly figure: string;
  readonly what: string;
  readonly value: Spread;
  readonly goal: string;
  readonly reached: boolean | undefined;
}

/** By case, a sample for each repeat. */
export type Samples = ReadonlyMap<string, readonly Sample[]>;

export function spread(values: readonly number[]): Spread {
  return { median: median(values), least: Math.min(...values), most: Math.max(...values) };
}

/** A sample that lost something is no measurement. */
const counts = ({ lost }: Sample): boolean => lost === 0;

export function summarise({ name, cases }: Figure, samples: Samples): CaseResult[] {
  return cases.flatMap((each) => {
    const taken = samples.get(each.name);
    if (taken === undefined) return [];
    const good = taken.filter(counts);
    const metrics = Object.keys(taken[0]?.metrics ?? {}).map((metric) => [
      metric,
      spread(good.map((sample) => sample.metrics[metric] ?? Number.NaN)),
    ]);
    const sum = (of: 'lost' | 'duplicates') => taken.reduce((total, sample) => total + sample[of], 0);
    const result = { lost: sum('lost'), duplicates: sum('duplicates'), samples: taken };
    return { figure: name, case: each.name, metrics: Object.fromEntries(metrics), ...result };
  });
}

export function judge({ name, comparisons, bounds }: Figure, samples: Samples): Verdict[] {
  const compared = comparisons.map(({ of, to, metric, atLeast }) => {
    const limits = samples.get(to) ?? [];
    // Repeat by repeat: what made one of them slow made its limit slow, too.
    const ratios = (samples.get(of) ?? []).flatMap((sample, repeat) => {
      const limit = limits[repeat];
      if (limit === undefined || !counts(sample) || !counts(limit)) return [];
      return (sample.metrics[metric] ?? Number.NaN) / (limit.metrics[metric] ?? Number.NaN);
    });
    const goal = atLeast === undefined ? '' : `≥ ${atLeast}`;
    const isReached = (value: number) => (atLeast === undefined ? undefined : value >= atLeast);
    return { ratios, what: `${of} ÷ ${to}`, goal, isReached };
  });
  const bounded = bounds.map(({ of, metric, atMost }) => ({
    ratios: (samples.get(of) ?? []).filter(counts).map((sample) => sample.metrics[metric] ?? Number.NaN),
    what: `${of}: ${metric}`,
    goal: `≤ ${atMost}`,
    isReached: (value: number) => value <= atMost,
  }));
  return [...compared, ...bounded].flatMap(({ ratios, what, goal, isReached }) => {
    if (ratios.length === 0) return [];
    const value = spread(ratios);
    return { figure: name, what, value, goal, reached: isReached(value.median) };
  });
}

export function tables(results: readonly CaseResult[], verdicts: readonly Verdict[]): string {
  const measured = results.flatMap(({ figure, case: name, metrics, lost, duplicates }) =>
    Object.entries(metrics).map(([metric, value], index) => [
      index === 0 ? figure : '',
      index === 0 ? name : '',
      metric,
      show(value.median),
      `${show(value.least)} – ${show(value.most)}`,
      index === 0 ? String(lost) : '',
      index === 0 ? String(duplicates) : '',
    ]),
  );
  const judged = verdicts.map(({ figure, what, value, goal, reached }) => [
    figure,
    what,
    show(value.median),
    `${show(value.least)} – ${show(value.most)}`,
    goal,
    reached === undefined ? '' : reached ? 'reached' : 'MISSED',
  ]);
  return [
    table(['figure', 'case', 'metric', 'median', 'spread', 'lost', 'duplicates'], measured),
    table(['figure', 'beside its limit', 'median', 'spread', 'goal', ''], judged),
  ].join('\n\n');
}

/** Three digits that matter. */
export function show(value: number): string {
  if (Number.isNaN(value)) return '–';
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString('en');
  return String(Number(value.toPrecision(3)));
}

export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const line = (cells: readonly string[]) =>
    `| ${widths.map((width, column) => (cells[column] ?? '').padEnd(width)).join(' | ')} |`;
  return [line(head), `|${widths.map((width) => '-'.repeat(width + 2)).join('|')}|`, ...rows.map(line)].join('\n');
}
