import type { Program } from './program.ts';

type Labels = Readonly<Record<string, string>>;

/** The sum of a metric's series that have these labels, as a process shows it now; undefined when it has none of them. */
export async function metric(program: Program, name: string, labels: Labels = {}): Promise<number | undefined> {
  const found = (await program.page('/metrics'))
    .split('\n')
    .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
    .filter((line) => Object.entries(labels).every(([label, value]) => line.includes(`${label}="${value}"`)))
    .map((line) => Number(line.slice(line.lastIndexOf(' ') + 1)));
  return found.length === 0 ? undefined : found.reduce((sum, value) => sum + value, 0);
}

/** The names of all metrics that a process shows, a histogram's with what it appends. */
export async function metricNames(program: Program): Promise<string[]> {
  const lines = (await program.page('/metrics')).split('\n');
  return lines.flatMap((line) => {
    const [, name = '', type] = /^# TYPE (\S+) (\S+)$/.exec(line) ?? [];
    if (type === undefined) return [];
    return type === 'histogram' ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name];
  });
}
