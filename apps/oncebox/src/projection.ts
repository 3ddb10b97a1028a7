import { type Projection, type RebuildProgress, rebuild } from '@oncebox/event-store';
import { createPool, parseDatabaseUrl } from '@oncebox/mysql';
import { databaseUrl, loadConfig } from '@oncebox/service';
import { z } from 'zod';
import { readArguments } from './arguments.ts';
import { type Command, UsageError } from './command.ts';
import { findModules, loadProjections } from './projection-modules.ts';
import { STATEMENT_MS } from './sources.ts';

const HELP = `Usage: oncebox projection rebuild [name …] [--restart] [--module VARIABLE:file …] [--json]

Writes every row of the named projections, or of all, anew from the events, while the services go on. Rows that belong to no stream
are deleted. When it is cut short, the same command goes on from where it was, unless rows are missing there.

  --restart               begin anew, also when an earlier rebuild was cut short
  --module VARIABLE:file  a module that exports projections, and the environment variable that holds the URL of their schema; may be
                          repeated. Without it, those that package.json lists:
                          { "oncebox": { "projections": { "API_DATABASE_URL": ["./orders/projection.js"] } } }
  --json                  print the result as JSON; progress goes to stderr

JSON: [{ projection, schema, done, total, removed }].
Exit codes: 0 done, 1 failed or cut short, 2 called wrongly.`;

export const projectionCommand: Command = { summary: 'rebuild projections from their events', help: HELP, run };

async function run(args: readonly string[]): Promise<number> {
  const { values, positionals } = readArguments(args, {
    module: { type: 'string', multiple: true },
    restart: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  });
  const [action = '', ...names] = positionals;
  if (action !== 'rebuild') throw new UsageError(action === '' ? 'rebuild?' : `there is no "projection ${action}"`);
  const found = await find(values.module, names);
  const stopping = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stopping.abort());

  const say = values.json ? console.error : console.log;
  const results = [];
  for (const { projection, url } of found) {
    const options = { restart: values.restart, signal: stopping.signal };
    const done = await rebuildIn(url, projection, options, say);
    if (done === undefined) {
      console.error(`oncebox projection: ${projection.name} was cut short; the same command goes on from there`);
      return 1;
    }
    results.push({ projection: projection.name, schema: parseDatabaseUrl(url).schema, ...done });
  }
  if (values.json) console.log(JSON.stringify(results));
  return 0;
}

interface Found {
  readonly projection: Projection;
  readonly url: string;
}

async function find(modules: readonly string[] | undefined, names: readonly string[]): Promise<readonly Found[]> {
  const found: Found[] = [];
  for (const module of findModules(modules)) {
    const projections = (await loadProjections(module)).filter(
      ({ name }) => names.length === 0 || names.includes(name),
    );
    if (projections.length === 0) continue;
    const { [module.variable]: url } = loadConfig(z.object({ [module.variable]: databaseUrl() }));
    found.push(...projections.map((projection) => ({ projection, url: String(url) })));
  }
  const unknown = names.find((name) => !found.some(({ projection }) => projection.name === name));
  if (unknown !== undefined) throw new UsageError(`there is no projection "${unknown}"`);
  return found;
}

async function rebuildIn(
  url: string,
  projection: Projection,
  options: { readonly restart: boolean; readonly signal: AbortSignal },
  say: (line: string) => void,
): Promise<Pick<RebuildProgress, 'done' | 'total' | 'removed'> | undefined> {
  const pool = createPool(url, { connections: 1, statementTimeoutMs: STATEMENT_MS });
  const onProgress = ({ done, total, removed }: RebuildProgress) => {
    // Streams that begin meanwhile are counted as done and not in the total.
    const percent = total === 0 ? 100 : Math.min(100, Math.floor((done / total) * 100));
    say(
      `${projection.name}: ${done} of ${total} streams (${percent} %)${removed > 0 ? `, ${removed} stray rows removed` : ''}`,
    );
  };
  try {
    const ended = await rebuild(pool, projection, { ...options, onProgress });
    return ended && { done: ended.done, total: ended.total, removed: ended.removed };
  } finally {
    await pool.end();
  }
}
