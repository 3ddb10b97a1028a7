import {
  listOutbox,
  type OutboxFilter,
  type ReleaseOutcome,
  type RetryOutcome,
  release,
  retryNow,
} from '@oncebox/outbox';
import { Report, SHOWN } from './report.ts';
import { type Source, type SourceOptions, withSources } from './sources.ts';

/** Messages a page, and so at most in one transaction: a relay that wants the partition waits no longer than these take. */
const PAGE = 1_000;

const RETRIED: Readonly<Record<RetryOutcome | 'would retry', string>> = {
  due: 'tried again now',
  behind: 'goes out after the earlier messages of its key',
  released: 'left alone: later messages of its key may be out, and it would come out of order (--force sends it)',
  pending: 'left alone: the relay sends it with its next pass',
  published: 'left alone: it is published',
  unknown: 'not found',
  'would retry': 'would be tried again',
};

const RELEASED: Readonly<Record<ReleaseOutcome, string>> = {
  released: 'released: the rest of its key goes on',
  'released before': 'left alone: it was released before',
  pending: 'left alone: it is not parked, the relay sends it with its next pass',
  held: 'left alone: it is not parked, and waits for its next attempt or behind its key ("outbox show" says which)',
  published: 'left alone: it is published',
  unknown: 'not found',
};

interface ChangeOptions extends SourceOptions {
  readonly json: boolean;
}

/** @returns the exit code. */
export async function retryIds(ids: readonly string[], options: ChangeOptions & { force: boolean }): Promise<number> {
  return await withSources(options, ['outboxes'], async ({ outboxes }) => {
    const report = new Report(RETRIED, ids.length);
    let missing = ids;
    for (const { schema, pool } of outboxes) {
      const outcomes = await retryNow(pool, missing, { outOfOrder: options.force });
      missing = missing.filter((id) => outcomes.get(id) === 'unknown');
      report.add(
        schema,
        Array.from(outcomes).filter(([, outcome]) => outcome !== 'unknown'),
      );
    }
    report.add(
      undefined,
      missing.map((id) => [id, 'unknown']),
    );
    report.print(options.json);
    return report.exitCode(['due', 'behind', 'pending']);
  });
}

/** @returns the exit code. */
export async function retryMatching(
  filter: OutboxFilter,
  { limit, dryRun, ...options }: ChangeOptions & { limit: number; force: boolean; dryRun: boolean },
): Promise<number> {
  return await withSources(options, ['outboxes'], async ({ outboxes }) => {
    const report = new Report(RETRIED, SHOWN);
    for (const { schema, pool } of outboxes) {
      for await (const ids of pages(pool, filter, limit - report.total)) {
        const dry = ids.map((id) => [id, 'would retry'] as const);
        report.add(schema, dryRun ? dry : await retryNow(pool, ids, { outOfOrder: options.force }));
        if (report.total > PAGE) console.error(`${schema}: ${report.total} messages`);
      }
    }
    report.print(options.json);
    return report.exitCode(['due', 'behind', 'pending', 'would retry']);
  });
}

/** By the order of the rows and not from the start again: what was retried is held now, and would match once more. */
async function* pages(pool: Source['pool'], filter: OutboxFilter, most: number): AsyncGenerator<readonly string[]> {
  for (let [after, left] = ['0', most]; left > 0; ) {
    const entries = await listOutbox(pool, filter, { after, limit: Math.min(PAGE, left) });
    const last = entries.at(-1);
    if (last === undefined) return;
    yield entries.map(({ id }) => id);
    after = last.seq;
    left -= entries.length;
  }
}

/** @returns the exit code. */
export async function releaseIds(ids: readonly string[], options: ChangeOptions): Promise<number> {
  return await withSources(options, ['outboxes'], async ({ outboxes }) => {
    const report = new Report(RELEASED, ids.length);
    for (const id of ids) report.add(...(await releaseWherever(outboxes, id)));
    report.print(options.json);
    return report.exitCode(['released']);
  });
}

async function releaseWherever(
  outboxes: readonly Source[],
  id: string,
): Promise<[schema: string | undefined, outcomes: [string, ReleaseOutcome][]]> {
  for (const { schema, pool } of outboxes) {
    const outcome = await release(pool, id);
    if (outcome !== 'unknown') return [schema, [[id, outcome]]];
  }
  return [undefined, [[id, 'unknown']]];
}
