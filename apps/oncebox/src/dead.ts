import { isUtf8 } from 'node:buffer';
import { type DeadLetter, type DeadLetterFilter, listDeadLetters, readSent } from '@oncebox/inbox';
import { readArguments, readCount, readDuration, readStates } from './arguments.ts';
import { type Command, UsageError } from './command.ts';
import { bringBackTo } from './dead-bring-back.ts';
import { findByIds, markIds, markMatching, STATES } from './dead-mark.ts';
import { SOURCE_HELP, SOURCE_OPTIONS, type SourceOptions, withSources } from './sources.ts';
import { ago, table } from './table.ts';

const HELP = `Usage: oncebox dead list [filters] [--limit N]
       oncebox dead show <id> [--payload]
       oncebox dead replay (<id> … | filters | --all) [--dry-run] [--limit N] [--rate N] [--force]
       oncebox dead discard (<id> … | filters | --all) [--dry-run] [--limit N] [--rate N]
       oncebox dead bring-back <consumer>

Messages that a consumer has given up. <id> is the number of a dead letter, as list shows it.

replay asks the consumer's worker to send them to the consumer again, under the same message ids; the worker does it, and then calls
them "replayed". A message from before the time that the inbox remembers is refused: it may have been handled, and would be handled
again. --force replays it all the same.
discard gives them up for good. The rows stay, and "oncebox verify" names the messages as not handled.
bring-back moves the messages that were set aside, because the database refused them, from the queue <consumer>.set-aside to <consumer>.dead,
where the worker tries again to store them. Until then each has a dead letter with the reason ONCEBOX_UNSTORABLE, which cannot be replayed.

Filters:
  --consumer NAME       the consumer that gave it up
  --type TYPE           the type of the message
  --reason TEXT         text in the reason
  --older-than, --newer-than DURATION   since it was given up: 90s, 15m, 24h, 7d
  --state STATE         ${STATES.join(', ')}; may be repeated; dead without it

  --all                 replay or discard without a filter
  --dry-run             show what would change, and change nothing
  --limit N             most dead letters; list shows 50 without it
  --rate N              most dead letters a second
  --payload             show what the message says: as a rule personal data
${SOURCE_HELP}
  AMQP_URL              the broker, for bring-back: as a user who may read <consumer>.set-aside and write to the default exchange

JSON: list [{ schema, id, consumer, messageId, type, version, routingKey, reason, errorClass, attempts, state, occurredAt, firstFailedAt,
lastFailedAt, createdAt, updatedAt, obstacle }], where obstacle says why a replay is refused; show one of these, with properties and body
(base64 if it is no UTF-8) if asked for; replay and discard { messages: [{ schema, id, outcome }], counts: { outcome: number } },
the first 50 messages if filters chose them; bring-back { consumer, moved }.
Exit codes: 0 done, 1 failed, or a dead letter was not found or left alone, 2 called wrongly.`;

export const deadCommand: Command = {
  summary: 'list, show, replay, discard or bring back dead letters',
  help: HELP,
  run,
};

const OPTIONS = {
  ...SOURCE_OPTIONS,
  consumer: { type: 'string' },
  type: { type: 'string' },
  reason: { type: 'string' },
  'older-than': { type: 'string' },
  'newer-than': { type: 'string' },
  state: { type: 'string', multiple: true },
  all: { type: 'boolean', default: false },
  'dry-run': { type: 'boolean', default: false },
  limit: { type: 'string' },
  rate: { type: 'string' },
  force: { type: 'boolean', default: false },
  payload: { type: 'boolean', default: false },
} as const;

async function run(args: readonly string[]): Promise<number> {
  const { values, positionals } = readArguments(args, OPTIONS);
  const [action = '', ...ids] = positionals;
  const { consumer, type, reason } = values;
  const given = { consumer, type, reason, olderThan: values['older-than'], newerThan: values['newer-than'] };
  const isFiltered = [values.state, ...Object.values(given)].some((value) => value !== undefined);
  const filter: DeadLetterFilter = {
    ...given,
    states: readStates(values.state, STATES) ?? ['dead'],
    olderThan: readDuration('older-than', given.olderThan),
    newerThan: readDuration('newer-than', given.newerThan),
  };
  const limit = readCount('limit', values.limit);
  const changes = {
    ...values,
    limit: limit ?? Number.POSITIVE_INFINITY,
    rate: readCount('rate', values.rate) ?? Number.POSITIVE_INFINITY,
    dryRun: values['dry-run'],
  };
  if (action === 'bring-back') return await bringBackTo(ids, isFiltered || values.all, values.json);
  if (ids.some((id) => !/^\d{1,20}$/.test(id))) {
    throw new UsageError(
      'a dead letter has a number, as "dead list" shows it; "oncebox message <id>" finds a message by its id',
    );
  }
  switch (action) {
    case 'list':
      if (ids.length > 0) throw new UsageError('list takes filters and no ids; "show <id>" shows one dead letter');
      return await list(filter, limit ?? 50, values);
    case 'show':
      if (ids.length !== 1) throw new UsageError('show takes the id of one dead letter');
      return await show(ids[0] ?? '', values);
    case 'replay':
    case 'discard':
      if (ids.length > 0 && (isFiltered || values.all))
        throw new UsageError(`${action} takes ids or filters, not both`);
      if (ids.length === 0 && !isFiltered && !values.all) {
        throw new UsageError(`${action} what? Give ids, or filters, or --all`);
      }
      return ids.length > 0 ? await markIds(action, ids, changes) : await markMatching(action, filter, changes);
    default:
      throw new UsageError(
        action === '' ? 'list, show, replay, discard or bring-back?' : `there is no "dead ${action}"`,
      );
  }
}

interface Chosen extends SourceOptions {
  readonly json: boolean;
}

async function list(filter: DeadLetterFilter, limit: number, chosen: Chosen): Promise<number> {
  return await withSources(chosen, ['services'], async ({ services }) => {
    const found: (DeadLetter & { schema: string })[] = [];
    for (const { schema, pool } of services) {
      const letters = await listDeadLetters(pool, filter, { after: '0', limit: limit + 1 - found.length });
      found.push(...letters.map((letter) => ({ schema, ...letter })));
    }
    const shown = found.slice(0, limit);
    if (chosen.json) console.log(JSON.stringify(shown));
    else {
      const rows = shown.map(({ schema, id, consumer, type, messageId, state, attempts, createdAt, reason }) => {
        return [schema, id, consumer, type, messageId, state, attempts, ago(createdAt), reason];
      });
      const names = ['SCHEMA', 'ID', 'CONSUMER', 'TYPE', 'MESSAGE', 'STATE', 'ATTEMPTS', 'AGE', 'REASON'];
      console.log(table([names, ...rows]));
      if (found.length > limit) console.log(`\nThere are more: --limit ${limit * 10} shows more of them`);
    }
    return 0;
  });
}

async function show(id: string, chosen: Chosen & { readonly payload: boolean }): Promise<number> {
  return await withSources(chosen, ['services'], async ({ services }) => {
    const found = await findByIds(services, [id]);
    const [letter] = found?.letters ?? [];
    if (found === undefined || letter === undefined) {
      console.error(
        `oncebox dead: there is no dead letter ${id} in ${services.map(({ schema }) => schema).join(', ')}`,
      );
      return 1;
    }
    const sent = chosen.payload ? await readSent(found.source.pool, id) : undefined;
    const content = sent === undefined ? {} : { properties: sent.properties, body: toText(sent.body) };
    const shown = { schema: found.source.schema, ...letter, ...content };
    console.log(chosen.json ? JSON.stringify(shown) : table(Object.entries(shown)));
    return 0;
  });
}

const toText = (body: Buffer): string => body.toString(isUtf8(body) ? 'utf8' : 'base64');
