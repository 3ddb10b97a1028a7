import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { start } from '../test/support/servers.ts';
import { readArguments, USAGE } from './arguments.ts';
import { readEnvironment } from './environment.ts';
import { type Figure, FULL, QUICK, type Sample } from './figure.ts';
import { figuresOf } from './figures/index.ts';
import { topFunctions } from './profile.ts';
import { judge, show, summarise, table, tables } from './report.ts';
import { createTestbed, type Testbed } from './testbed.ts';

/** `make bench`: measures on servers of its own and prints what docs/benchmarks.md explains. */

const given = readGiven();
const sizes = given.quick ? QUICK : FULL;
const began = performance.now();
const folder = mkdtempSync(join(tmpdir(), 'oncebox-bench-'));
const say = (line: string): void => {
  const seconds = Math.round((performance.now() - began) / 1_000);
  console.log(`[${String(Math.floor(seconds / 60)).padStart(3)}:${String(seconds % 60).padStart(2, '0')}] ${line}`);
};

const started = await start();
const bed = await createTestbed(started.servers, {
  sizes,
  profileInto: given.profile ? folder : undefined,
  note: (line) => say(`    ${line}`),
});
const finish = async (): Promise<void> => {
  rmSync(folder, { recursive: true, force: true });
  // Servers that are gone cannot be tidied, and that should not hide why they are gone.
  await bed.drop().catch((error) => say(`not tidied: ${error}`));
  await started.stop();
};
// The processes that a case has started end with this one, and so do servers of our own. Given ones keep what is on them.
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => void finish().finally(() => process.exit(1)));

try {
  await measure(bed);
} catch (error) {
  console.error(error);
  process.exitCode = 1;
}
await finish();
process.exit();

async function measure(on: Testbed): Promise<void> {
  const environment = await readEnvironment(on, started.source);
  const chosen = figuresOf(sizes)
    .filter(({ name }) => given.only.length === 0 || given.only.includes(name))
    .map((figure) => ({ ...figure, cases: figure.cases.filter(({ name }) => name.includes(given.match)) }));
  const samples = new Map(chosen.map(({ name }) => [name, new Map<string, Sample[]>()]));
  const failure = await takeAll(on, chosen, samples).then(
    () => undefined,
    (error: unknown) => ({ error }),
  );
  const of = (name: string) => samples.get(name) ?? new Map<string, Sample[]>();
  const results = chosen.flatMap((figure) => summarise(figure, of(figure.name)));
  const verdicts = chosen.flatMap((figure) => judge(figure, of(figure.name)));
  const loadAtEnd = loadavg()
    .map((load) => load.toFixed(1))
    .join(' ');
  const conditions = {
    ...environment,
    'load average at the end': loadAtEnd,
    repeats: String(given.repeats),
    sizes: JSON.stringify(sizes),
  };
  console.log(`\n${table(['environment', ''], Object.entries(conditions))}\n\n${tables(results, verdicts)}`);
  if (given.json !== undefined) {
    writeFileSync(given.json, `${JSON.stringify({ environment: conditions, results, verdicts }, undefined, 2)}\n`);
  }
  if (results.some(({ lost }) => lost > 0)) {
    console.error('\nMessages or effects were lost: the figures of those runs do not count.');
    process.exitCode = 1;
  }
  // What was measured before is shown first: a run takes an hour.
  if (failure !== undefined) throw failure.error;
}

async function takeAll(
  on: Testbed,
  chosen: readonly Figure[],
  samples: ReadonlyMap<string, Map<string, Sample[]>>,
): Promise<void> {
  for (let repeat = 1; repeat <= given.repeats; repeat += 1) {
    for (const figure of chosen) {
      for (const { name, run } of figure.cases) {
        say(`${repeat}/${given.repeats} ${figure.name}: ${name} …`);
        const sample = await run(on);
        const { metrics, lost, duplicates } = sample;
        const measured = Object.entries(metrics).map(([metric, value]) => `${show(value)} ${metric}`);
        say(`    ${measured.join(', ')}; lost ${lost}, duplicates ${duplicates}`);
        const taken = samples.get(figure.name)?.get(name);
        if (taken === undefined) samples.get(figure.name)?.set(name, [sample]);
        else taken.push(sample);
        if (given.profile) sayProfile();
      }
    }
  }
}

function sayProfile(): void {
  const { busySeconds, top } = topFunctions(folder);
  if (top.length === 0) return;
  say(`    profile: busy for ${busySeconds.toFixed(1)} s, of which`);
  for (const { where, share } of top) say(`    ${(share * 100).toFixed(1).padStart(5)} %  ${where}`);
}

function readGiven() {
  try {
    const read = readArguments(
      process.argv.slice(2),
      figuresOf(FULL).map(({ name }) => name),
    );
    if (!read.help) return read;
    console.log(USAGE);
    process.exit(0);
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : error}\n\n${USAGE}`);
    process.exit(2);
  }
}
