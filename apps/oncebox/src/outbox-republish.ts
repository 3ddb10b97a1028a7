import { setTimeout as delay } from 'node:timers/promises';
import { inboxForgottenBefore, type Registration } from '@oncebox/inbox';
import type { Pool } from '@oncebox/mysql';
import { type OutboxEntry, outboxForgottenBefore, readBacklog, republish, scanOutbox } from '@oncebox/outbox';
import { assertNone, type Moment, readArguments, readMoment } from './arguments.ts';
import { UsageError } from './command.ts';
import { type Inbox, missingIn, readInboxes, registered } from './inboxes.ts';
import { resolveMoment } from './moment.ts';
import { Report, SHOWN } from './report.ts';
import { noSchema, onlySchema, SOURCE_OPTIONS, type Source, type SourceOptions, withSources } from './sources.ts';

type Obstacle = 'forgotten' | 'discarded' | 'history' | 'no consumer';
type Outcome = 'republished' | 'would republish' | 'optional' | 'not published' | 'unknown' | Obstacle;

const MEANING: Readonly<Record<Outcome, string>> = {
  republished: 'goes out again with the next pass of the relay, under the same id',
  'would republish': 'would go out again',
  optional: 'left alone: it is optional, and no consumer has registered for it',
  'not published': 'left alone: it is not published yet ("outbox retry" sends what is held or parked)',
  unknown: 'not found',
  forgotten:
    'refused: it is older than what an inbox remembers that does not have it, and may have been handled (--force sends it)',
  discarded: 'refused: a consumer has discarded it, and would handle it now (--force sends it)',
  history: 'refused: a consumer that was added later would take it for news (--force sends it)',
  'no consumer':
    'refused: no consumer of the schemas given has registered for it, so nobody can tell (name its schema with --service; --force sends it)',
};
const GOOD: readonly Outcome[] = ['republished', 'would republish', 'optional'];

/**
 * Not more are set back while as many are to be published: what is written meanwhile should not
 * come much later for it.
 */
const MOST_PENDING = 10_000;
const LOOK_EVERY_MS = 200;
const TELL_EVERY_MS = 2_000;

const OPTIONS = {
  ...SOURCE_OPTIONS,
  since: { type: 'string' },
  until: { type: 'string' },
  type: { type: 'string', multiple: true },
  key: { type: 'string', multiple: true },
  id: { type: 'string', multiple: true },
  'dry-run': { type: 'boolean', default: false },
  force: { type: 'boolean', default: false },
} as const;

interface Request extends SourceOptions {
  readonly json: boolean;
  readonly dryRun: boolean;
  readonly force: boolean;
  /** Published from then on; and before then, or before the command began. */
  readonly since: Moment | undefined;
  readonly until: Moment | undefined;
  readonly types: readonly string[] | undefined;
  readonly keys: readonly string[] | undefined;
  readonly ids: ReadonlySet<string> | undefined;
}

/** @param args what follows `oncebox outbox republish`. @returns the exit code. */
export async function runRepublish(args: readonly string[]): Promise<number> {
  const { values, positionals } = readArguments(args, OPTIONS);
  assertNone(positionals);
  const { since, key, id } = values;
  if (since === undefined && key === undefined && id === undefined) {
    throw new UsageError('republish what? Give --since, --key or --id');
  }
  return await republishMatching({
    ...values,
    dryRun: values['dry-run'],
    since: readMoment('since', since),
    until: readMoment('until', values.until),
    types: values.type,
    keys: key,
    ids: id && new Set(id),
  });
}

async function republishMatching({ schema, ...request }: Request): Promise<number> {
  return await withSources(request, ['outboxes', 'services'], async ({ outboxes, services }) => {
    if (outboxes.length === 0) throw noSchema(['outboxes']);
    // Nobody would know what has been handled.
    if (services.length === 0 && !request.force) throw noSchema(['services']);
    const inboxes = await readInboxes(services);
    const report = new Report(MEANING, Math.max(SHOWN, request.ids?.size ?? 0));
    const found = new Set<string>();
    const gone: string[] = [];
    for (const source of onlySchema(outboxes, schema)) {
      const filter = await resolve(source.pool, request);
      await republishFrom(source, inboxes, filter, request, report, found);
      // After the scan: what retention took meanwhile is older than this.
      const before = await outboxForgottenBefore(source.pool);
      if (before !== undefined && (filter.since === undefined || before > filter.since)) {
        gone.push(`${source.schema}: published messages from before ${before} may have been removed by retention`);
      }
    }
    const lost = request.ids?.difference(found) ?? [];
    report.add(
      undefined,
      Array.from(lost, (id) => [id, 'unknown']),
    );
    const isWhole = gone.length === 0 || request.ids?.isSubsetOf(found) === true;
    if (!isWhole) console.error(gone.join('\n'));
    report.print(request.json);
    // What was removed was published, and cannot be sent: that is not a failure of this run.
    const code = report.exitCode(isWhole ? GOOD : [...GOOD, 'unknown']);
    return code === 0 && !isWhole ? 3 : code;
  });
}

interface Filter {
  readonly since: string | undefined;
  readonly until: string;
}

/**
 * Times by the outbox's own database. Without --until the end is now: what the relay sends
 * meanwhile is not sent a third time.
 */
async function resolve(pool: Pool, { since, until }: Request): Promise<Filter> {
  return { since: since && (await resolveMoment(pool, since)), until: await resolveMoment(pool, until ?? { ago: 0 }) };
}

async function republishFrom(
  { schema, pool }: Source,
  inboxes: readonly Inbox[],
  { since, until }: Filter,
  { ids, types, keys, force, dryRun }: Request,
  report: Report<Outcome>,
  found: Set<string>,
): Promise<void> {
  const wanted = (row: OutboxEntry): boolean =>
    (ids?.has(row.id) ?? true) &&
    (types?.includes(row.type) ?? true) &&
    (keys?.includes(row.aggregateId) ?? true) &&
    (row.state !== 'published' ? ids !== undefined : isWithin(row.publishedAt ?? '', since, until));
  let [read, told] = [0, Date.now()];
  const progress = (more = ''): void => {
    if (Date.now() - told < TELL_EVERY_MS) return;
    told = Date.now();
    console.error(`${schema}: ${read} rows read, ${report.total} messages chosen${more}`);
  };
  // In the order of seq, and so in the order of each key.
  for await (const page of scanOutbox(pool, { since: undefined, settledFor: 0 })) {
    read += page.length;
    const rows = page.filter(wanted);
    for (const { id } of page) if (ids?.has(id)) found.add(id);
    const published = rows.filter(({ state }) => state === 'published');
    const obstacles = force ? new Map<string, Outcome>() : await obstaclesOf(inboxes, published);
    const sending = published.filter(({ id }) => !obstacles.has(id));
    if (sending.length > 0 && !dryRun) {
      await untilRoom(pool, (pending) => progress(`; ${pending} are to be published: is a relay running?`));
    }
    const back = dryRun
      ? undefined
      : await republish(
          pool,
          sending.map(({ seq }) => seq),
        );
    report.add(
      schema,
      rows.map(({ id, seq, state }): [string, Outcome] => {
        if (state !== 'published') return [id, 'not published'];
        const obstacle = obstacles.get(id);
        if (obstacle !== undefined) return [id, obstacle];
        if (back === undefined) return [id, 'would republish'];
        return [id, back.has(seq) ? 'republished' : 'unknown'];
      }),
    );
    progress();
  }
}

const isWithin = (time: string, since: string | undefined, until: string): boolean =>
  time < until && (since === undefined || time >= since);

async function untilRoom(pool: Pool, onFull: (pending: number) => void): Promise<void> {
  for (;;) {
    const { pending } = await readBacklog(pool, MOST_PENDING);
    if (pending < MOST_PENDING) return;
    onFull(pending);
    await delay(LOOK_EVERY_MS);
  }
}

/**
 * Why these may not be sent again, by id. A message goes to all who are bound for it, so each of
 * them must take it well.
 */
async function obstaclesOf(
  inboxes: readonly Inbox[],
  rows: readonly OutboxEntry[],
): Promise<ReadonlyMap<string, Outcome>> {
  const obstacles = new Map<string, Outcome>();
  if (rows.length === 0) return obstacles;
  for (const row of rows) {
    if (inboxes.some((inbox) => registered(inbox, row).length > 0)) continue;
    obstacles.set(row.id, row.delivery === 'optional' ? 'optional' : 'no consumer');
  }
  for (const inbox of inboxes) {
    const missing = await missingIn(inbox, rows, registered);
    // After the look at the ids, or one may go in between.
    const forgottenBefore = await inboxForgottenBefore(inbox.source.pool);
    for (const { row, registration, letter } of missing) {
      if (letter?.state === 'discarded') obstacles.set(row.id, 'discarded');
      else if (isForgotten(inbox, row, registration, forgottenBefore)) obstacles.set(row.id, 'forgotten');
      // A handler that takes history knows an old message from a new one.
      else if (registration.since > row.createdAt && !registration.replays) obstacles.set(row.id, 'history');
    }
  }
  return obstacles;
}

/**
 * Whether the inbox may have handled a message and no longer know it. An inbox row is never older
 * than its message. Of a consumer that was added since, the inbox has every row; what counts is the
 * consumer's age and not the type's, as for `oncebox replay`.
 */
function isForgotten(
  { registrations }: Inbox,
  row: OutboxEntry,
  { consumer }: Registration,
  forgottenBefore: string | undefined,
): boolean {
  if (forgottenBefore === undefined || row.createdAt >= forgottenBefore) return false;
  return registrations.some((each) => each.consumer === consumer && each.since < forgottenBefore);
}
