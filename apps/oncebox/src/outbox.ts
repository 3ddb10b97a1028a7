import { findInOutbox, listOutbox, type OutboxFilter, type OutboxState } from '@oncebox/outbox';
import { readArguments, readCount, readDuration, readStates } from './arguments.ts';
import { type Command, UsageError } from './command.ts';
import { runRepublish } from './outbox-republish.ts';
import { releaseIds, retryIds, retryMatching } from './outbox-retry.ts';
import { SOURCE_HELP, SOURCE_OPTIONS, type SourceOptions, withSources } from './sources.ts';
import { ago, table } from './table.ts';

const STATES = ['pending', 'held', 'parked', 'released', 'published'] as const;

const HELP = `Usage: oncebox outbox list [filters] [--limit N]
       oncebox outbox show <id> [--payload]
       oncebox outbox retry <id> … [--force]
       oncebox outbox retry (filters | --all) [--limit N] [--dry-run] [--force]
       oncebox outbox release <id> …
       oncebox outbox republish [--since TIME] [--until TIME] [--type TYPE …] [--key KEY …] [--id ID …] [--dry-run] [--force]

Messages that are not published, and why; without --state, list shows all but the published.
  pending    goes out with the relay's next pass
  held       waits for its next attempt, or behind the failed head of its key
  parked     can never be sent as it is, and the rest of its key waits behind it
  released   parked, and the rest of its key goes on without it

retry tries parked or held messages again now, with their attempts counted from zero. A key stays in order: what waits behind another
message goes out after it. With filters it retries parked and held ones (or those of --state). A released message is refused, because
later ones of its key may be out; --force sends it all the same.
release gives a parked message up: the rest of its key goes on. The row stays, and "oncebox verify" names it as not published.

republish sends again what was published and is kept, after a disaster: the broker's disk is gone, or a database came back from an older
backup. The ids stay, so the inboxes recognise what was handled; the messages of a key go out in their order. Refused, unless --force
sends it, is a message that an inbox may have forgotten, that a consumer has discarded, that a consumer which was added later would take for
news, or that no consumer of the schemas given has registered for. It needs the services' schemas for that. What is not published yet is
not touched. While 10,000 messages are to be published it waits for the relay. It may be repeated.
  --since, --until TIME published from then on, and before then: 24h, or 2026-01-31T08:00Z; without --until, before the command began
  --type, --key, --id   only these types, keys (ids of aggregates) or messages; each may be repeated
  --schema NAME         only this outbox; the inboxes of all are asked

Filters:
  --state STATE         ${STATES.join(', ')}; may be repeated
  --type TYPE           the type of the message
  --reason TEXT         text in its last error
  --older-than, --newer-than DURATION   since it was written: 90s, 15m, 24h, 7d

  --all                 retry without a filter
  --limit N             most messages; list shows 50 without it
  --dry-run             show what would be retried, and change nothing
  --payload             show what the message says: as a rule personal data
${SOURCE_HELP}

JSON: list [{ schema, seq, id, type, version, aggregateType, aggregateId, state, attempts, lastError, delivery, whenParked, createdAt,
publishedAt }]; show one of these with exchange, routingKey, dueAt, behind, headers, and payload if asked for; retry, release
and republish { messages: [{ schema, id, outcome }], counts: { outcome: number } }, the first 50 messages of those with filters.
Exit codes: 0 done, 1 failed, or a message was not found, left alone or refused, 2 called wrongly, 3 of republish: what is kept is sent,
and retention has removed some of what was asked for.`;

export const outboxCommand: Command = {
  summary: 'list, show, retry, release or republish messages of the outbox',
  help: HELP,
  run,
};

const OPTIONS = {
  ...SOURCE_OPTIONS,
  state: { type: 'string', multiple: true },
  type: { type: 'string' },
  reason: { type: 'string' },
  'older-than': { type: 'string' },
  'newer-than': { type: 'string' },
  all: { type: 'boolean', default: false },
  limit: { type: 'string' },
  force: { type: 'boolean', default: false },
  'dry-run': { type: 'boolean', default: false },
  payload: { type: 'boolean', default: false },
} as const;

async function run(args: readonly string[]): Promise<number> {
  // It has options of its own: one of the others' that it passed over would send more than was asked for.
  if (args[0] === 'republish') return await runRepublish(args.slice(1));
  const { values, positionals } = readArguments(args, OPTIONS);
  const [action = '', ...ids] = positionals;
  const limit = readCount('limit', values.limit);
  const isFiltered = [values.type, values.reason, values['older-than'], values['newer-than'], values.state].some(
    (value) => value !== undefined,
  );
  const filter = (states: readonly OutboxState[]): OutboxFilter => ({
    states: readStates(values.state, STATES) ?? states,
    type: values.type,
    reason: values.reason,
    olderThan: readDuration('older-than', values['older-than']),
    newerThan: readDuration('newer-than', values['newer-than']),
  });
  switch (action) {
    case 'list':
      if (ids.length > 0) throw new UsageError('list takes filters and no ids; "show <id>" shows one message');
      return await list(filter(['pending', 'held', 'parked', 'released']), limit ?? 50, values);
    case 'show':
      if (ids.length !== 1) throw new UsageError('show takes the id of one message');
      return await show(ids[0] ?? '', values);
    case 'retry':
      if (ids.length > 0 && (isFiltered || values.all || values['dry-run'])) {
        throw new UsageError('retry takes ids, or filters and --dry-run, not both');
      }
      if (ids.length > 0) return await retryIds(ids, values);
      if (!isFiltered && !values.all) throw new UsageError('retry what? Give ids, or filters, or --all');
      return await retryMatching(filter(['parked', 'held']), {
        ...values,
        limit: limit ?? Number.POSITIVE_INFINITY,
        dryRun: values['dry-run'],
      });
    case 'release':
      if (ids.length === 0) throw new UsageError('release takes the ids of parked messages');
      return await releaseIds(ids, values);
    default:
      throw new UsageError(
        action === '' ? 'list, show, retry, release or republish?' : `there is no "outbox ${action}"`,
      );
  }
}

interface Chosen extends SourceOptions {
  readonly json: boolean;
}

async function list(filter: OutboxFilter, limit: number, chosen: Chosen): Promise<number> {
  return await withSources(chosen, ['outboxes'], async ({ outboxes }) => {
    const found = [];
    for (const { schema, pool } of outboxes) {
      const entries = await listOutbox(pool, filter, { after: '0', limit: limit + 1 - found.length });
      found.push(...entries.map((entry) => ({ schema, ...entry })));
    }
    const shown = found.slice(0, limit);
    if (chosen.json) console.log(JSON.stringify(shown));
    else {
      const rows = shown.map(
        ({ schema, id, type, aggregateType, aggregateId, state, attempts, createdAt, lastError }) => {
          return [schema, id, type, `${aggregateType}/${aggregateId}`, state, attempts, ago(createdAt), lastError];
        },
      );
      console.log(table([['SCHEMA', 'ID', 'TYPE', 'KEY', 'STATE', 'ATTEMPTS', 'AGE', 'LAST ERROR'], ...rows]));
      if (found.length > limit) console.log(`\nThere are more: --limit ${limit * 10} shows more of them`);
    }
    return 0;
  });
}

async function show(id: string, chosen: Chosen & { readonly payload: boolean }): Promise<number> {
  return await withSources(chosen, ['outboxes'], async ({ outboxes }) => {
    for (const { schema, pool } of outboxes) {
      const found = await findInOutbox(pool, id);
      if (found === undefined) continue;
      const { payload, ...rest } = found;
      const shown = { schema, ...rest, ...(chosen.payload ? { payload } : {}) };
      console.log(chosen.json ? JSON.stringify(shown) : table(Object.entries(shown)));
      return 0;
    }
    console.error(`oncebox outbox: ${id} is in none of ${outboxes.map(({ schema }) => schema).join(', ')}`);
    return 1;
  });
}
