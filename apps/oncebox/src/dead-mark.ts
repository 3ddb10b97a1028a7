import { setTimeout as delay } from 'node:timers/promises';
import {
  type DeadLetter,
  type DeadLetterFilter,
  type DiscardOutcome,
  discardDeadLetters,
  listDeadLetters,
  type ReplayOutcome,
  requestReplay,
} from '@oncebox/inbox';
import { UsageError } from './command.ts';
import { Report, SHOWN } from './report.ts';
import { type Source, type SourceOptions, withSources } from './sources.ts';

export const STATES = ['dead', 'replay', 'replayed', 'discarded'] as const;

/** Dead letters a page, and so in one transaction. */
const PAGE = 200;

type Outcome = ReplayOutcome | DiscardOutcome | 'would change';

const MEANING: Readonly<Record<Outcome, string>> = {
  replay: 'will be sent again by its worker',
  waiting: 'was asked for before, and waits for its worker',
  forgotten: 'refused: it is older than what the inbox remembers, and may have been handled (--force replays it)',
  'set aside':
    'refused: it has nothing to send, the message is in the queue <consumer>.set-aside ("oncebox dead bring-back")',
  'no id': 'refused: it has no message id, and no consumer would take it',
  discarded: 'discarded',
  'discarded before': 'left alone: it was discarded before',
  replayed: 'left alone: it was sent again; if that failed, there is another dead letter',
  unknown: 'not found',
  'would change': 'would change',
};
const GOOD: readonly Outcome[] = ['replay', 'waiting', 'discarded', 'discarded before', 'would change'];

export type Action = 'replay' | 'discard';

export interface MarkOptions extends SourceOptions {
  readonly json: boolean;
  readonly dryRun: boolean;
  readonly force: boolean;
  readonly limit: number;
  /** A second. */
  readonly rate: number;
}

/** @returns the exit code. */
export async function markIds(action: Action, ids: readonly string[], options: MarkOptions): Promise<number> {
  return await withSources(options, ['services'], async ({ services }) => {
    const report = new Report(MEANING, ids.length);
    const found = await findByIds(services, ids);
    const known = new Set(found?.letters.map(({ id }) => id));
    if (found !== undefined) await markAll(action, found.source, found.letters, options, report);
    report.add(
      undefined,
      ids.filter((id) => !known.has(id)).map((id) => [id, 'unknown']),
    );
    return finish(action, report, options);
  });
}

/** @returns the exit code. */
export async function markMatching(action: Action, filter: DeadLetterFilter, options: MarkOptions): Promise<number> {
  return await withSources(options, ['services'], async ({ services }) => {
    const report = new Report(MEANING, SHOWN);
    for (const source of services) {
      for (let after = '0'; report.total < options.limit; ) {
        const limit = Math.min(PAGE, options.rate, options.limit - report.total);
        const letters = await listDeadLetters(source.pool, filter, { after, limit });
        const last = letters.at(-1);
        if (last === undefined) break;
        await markAll(action, source, letters, options, report);
        after = last.id;
      }
    }
    return finish(action, report, options);
  });
}

async function markAll(
  action: Action,
  { schema, pool }: Source,
  letters: readonly DeadLetter[],
  { dryRun, force, rate }: MarkOptions,
  report: Report<Outcome>,
): Promise<void> {
  // A pause before each page but the first keeps the rate, and costs a single page nothing.
  if (!dryRun && report.total > 0) await delay((1_000 * letters.length) / rate);
  const ids = letters.map(({ id }) => id);
  if (dryRun)
    report.add(
      schema,
      letters.map((letter) => [letter.id, foresee(action, letter, force)]),
    );
  else if (action === 'replay') report.add(schema, await requestReplay(pool, ids, { force }));
  else report.add(schema, await discardDeadLetters(pool, ids));
  if (report.total > letters.length) console.error(`${schema}: ${report.total} dead letters`);
}

const foresee = (action: Action, { obstacle }: DeadLetter, force: boolean): Outcome =>
  action === 'discard' || obstacle === null || (obstacle === 'forgotten' && force) ? 'would change' : obstacle;

function finish(action: Action, report: Report<Outcome>, { json, dryRun }: MarkOptions): number {
  report.print(json);
  if (!json && !dryRun && action === 'replay' && report.total > 0) {
    console.log(
      '\n"oncebox dead list --state replay" shows what its worker has yet to send, "oncebox message <id>" what came of it.',
    );
  }
  return report.exitCode(GOOD);
}

/**
 * Dead letters by their numbers, and the one schema that has them.
 *
 * @throws UsageError when several schemas have: each counts for itself, so that a number may mean another dead letter in each.
 */
export async function findByIds(
  services: readonly Source[],
  ids: readonly string[],
): Promise<{ source: Source; letters: DeadLetter[] } | undefined> {
  const found = [];
  for (const source of services) {
    const letters = await listDeadLetters(source.pool, { states: STATES, ids }, { after: '0', limit: ids.length });
    if (letters.length > 0) found.push({ source, letters });
  }
  if (found.length > 1) {
    const schemas = found.map(({ source }) => source.schema).join(', ');
    throw new UsageError(`dead letters of these numbers are in several schemas (${schemas}): say which with --schema`);
  }
  return found[0];
}
