import { findSagas, hasSagas, listSagas, type ResumeOutcome, resumeSaga, type SagaState } from '@oncebox/saga';
import { readArguments, readCount, readStates } from './arguments.ts';
import { type Command, UsageError } from './command.ts';
import { Report, SHOWN } from './report.ts';
import { noSchema, SOURCE_HELP, SOURCE_OPTIONS, type Source, type SourceOptions, withSources } from './sources.ts';
import { ago, table } from './table.ts';

const STATES = ['running', 'stuck', 'completed', 'compensated'] as const;

const HELP = `Usage: oncebox saga list [--state STATE] [--limit N]
       oncebox saga show <id>
       oncebox saga resume <id> …
       oncebox saga resume --all

Processes that one service coordinates, step by step; without --state, list shows those that have not ended.
  running       waits for the answer to a command, or undoes what it has done
  stuck         got no answer, or one that leaves it no way on; it still takes an answer that comes late
  completed     did all its steps
  compensated   was refused one, and has undone the others

show tells where a saga stands and what happened to it so far, without its data.
resume lets a stuck saga send the command of its step again, with all its attempts: the worker does it within a second.

  --state STATE         ${STATES.join(', ')}; may be repeated
  --limit N             most sagas of a list (50)
  --all                 resume every stuck saga
${SOURCE_HELP}

JSON: list [{ schema, name, id, state, direction, step, attempts, reason, problem, dueAt, createdAt, updatedAt }]; show a list of these
with correlationId and history [{ at, happened }]; resume { messages: [{ schema, id, outcome }], counts: { outcome: number } }.
Exit codes: 0 done, 1 failed, or a saga was not found or is not stuck, 2 called wrongly.`;

export const sagaCommand: Command = {
  summary: 'list or show sagas, or resume stuck ones',
  help: HELP,
  run,
};

const OPTIONS = {
  ...SOURCE_OPTIONS,
  state: { type: 'string', multiple: true },
  limit: { type: 'string', default: '50' },
  all: { type: 'boolean', default: false },
} as const;

interface Chosen extends SourceOptions {
  readonly json: boolean;
}

async function run(args: readonly string[]): Promise<number> {
  const { values, positionals } = readArguments(args, OPTIONS);
  const [action = '', ...ids] = positionals;
  const limit = readCount('limit', values.limit) ?? 0;
  const states = readStates(values.state, STATES) ?? ['running', 'stuck'];
  switch (action) {
    case 'list':
      if (ids.length > 0) throw new UsageError('list takes no ids; "show <id>" shows one saga');
      return await inSagas(values, (sources) => list(sources, states, limit, values.json));
    case 'show':
      if (ids.length !== 1) throw new UsageError('show takes the id of one saga');
      return await inSagas(values, (sources) => show(sources, ids[0] ?? '', values.json));
    case 'resume':
      if (ids.length === 0 && !values.all) throw new UsageError('resume which? Give ids, or --all');
      if (ids.length > 0 && values.all) throw new UsageError('resume takes ids or --all, not both');
      return await inSagas(values, (sources) => resume(sources, ids, values.json));
    default:
      throw new UsageError(action === '' ? 'list, show or resume?' : `there is no "saga ${action}"`);
  }
}

/** Of the services' schemas, those that have sagas. */
async function inSagas(chosen: Chosen, work: (sources: readonly Source[]) => Promise<number>): Promise<number> {
  return await withSources(chosen, ['services'], async ({ services }) => {
    const has = await Promise.all(services.map(({ pool }) => hasSagas(pool)));
    const sources = services.filter((_source, at) => has[at]);
    if (sources.length === 0) throw noSchema(['services']);
    return await work(sources);
  });
}

async function list(
  sources: readonly Source[],
  states: readonly SagaState[],
  limit: number,
  json: boolean,
): Promise<number> {
  const found = [];
  for (const { schema, pool } of sources) {
    const entries = await listSagas(pool, { states, limit: limit + 1 - found.length });
    found.push(...entries.map((entry) => ({ schema, ...entry })));
  }
  const shown = found.slice(0, limit);
  if (json) console.log(JSON.stringify(shown));
  else {
    const rows = shown.map(({ schema, name, id, state, direction, step, attempts, reason, problem, createdAt }) => {
      const at = direction === 'back' ? `undoing ${step}` : step;
      return [schema, name, id, state, at, attempts, ago(createdAt), problem ?? reason];
    });
    console.log(table([['SCHEMA', 'SAGA', 'ID', 'STATE', 'STEP', 'ATTEMPTS', 'AGE', 'REASON'], ...rows]));
    if (found.length > limit) console.log(`\nThere are more: --limit ${limit * 10} shows more of them`);
  }
  return 0;
}

async function show(sources: readonly Source[], id: string, json: boolean): Promise<number> {
  const found = [];
  for (const { schema, pool } of sources) {
    found.push(...(await findSagas(pool, id)).map((saga) => ({ schema, ...saga })));
  }
  if (json) console.log(JSON.stringify(found));
  else {
    for (const { history, ...rest } of found) {
      console.log(`${table(Object.entries(rest))}\n`);
      console.log(`${table([['AT', 'WHAT HAPPENED'], ...history.map(({ at, happened }) => [at, happened])])}\n`);
    }
  }
  if (found.length > 0) return 0;
  console.error(`oncebox saga: ${id} is in none of ${sources.map(({ schema }) => schema).join(', ')}`);
  return 1;
}

const OUTCOMES: Readonly<Record<ResumeOutcome, string>> = {
  resumed: 'resumed: its worker sends the command of its step again',
  running: 'left alone: it is not stuck, and waits for an answer',
  ended: 'left alone: it has ended',
  unknown: 'not found',
};

/** @param ids none for all that are stuck. */
async function resume(sources: readonly Source[], ids: readonly string[], json: boolean): Promise<number> {
  const report = new Report(OUTCOMES, Math.max(ids.length, SHOWN));
  const missing = new Set(ids);
  for (const { schema, pool } of sources) {
    const keys =
      ids.length === 0
        ? await listSagas(pool, { states: ['stuck'], limit: Number.MAX_SAFE_INTEGER })
        : (await Promise.all(ids.map((id) => findSagas(pool, id)))).flat();
    for (const { name, id } of keys) {
      missing.delete(id);
      report.add(schema, [[id, await resumeSaga(pool, { name, id })]]);
    }
  }
  report.add(
    undefined,
    Array.from(missing, (id) => [id, 'unknown']),
  );
  report.print(json);
  return report.exitCode(['resumed']);
}
