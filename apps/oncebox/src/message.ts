import { type DeadLetter, deadLettersOf, inboxForgottenBefore, readHandled, readRegistrations } from '@oncebox/inbox';
import { findInOutbox, type OutboxDetails, outboxForgottenBefore } from '@oncebox/outbox';
import { readArguments } from './arguments.ts';
import { type Command, UsageError } from './command.ts';
import { SOURCE_HELP, SOURCE_OPTIONS, type Source, type Sources, withSources } from './sources.ts';
import { type Cell, table } from './table.ts';

const HELP = `Usage: oncebox message <id>

The whole path of one message over all schemas: its row in the outbox, its attempts, when the broker confirmed it, when each expected
consumer handled it, and its dead letters.

${SOURCE_HELP}

JSON: { id, outbox: null or as of "outbox show", consumers: [{ schema, consumer, expected, handledAt, forgottenBefore }],
        deadLetters: [as of "dead list"], outboxForgottenBefore }
where a forgottenBefore says that what is not there may have been removed, if it is older than that.
Exit codes: 0 found, 1 found nowhere, or the command failed, 2 called wrongly, 3 found nowhere, and retention may have removed it.`;

export const messageCommand: Command = { summary: 'the path of one message over all schemas', help: HELP, run };

interface Consumed {
  readonly schema: string;
  readonly consumer: string;
  /** Whether it has registered for the type of the message before it was written. */
  readonly expected: boolean;
  readonly handledAt: string | null;
  readonly forgottenBefore: string | null;
}

interface Path {
  readonly id: string;
  readonly outbox: ({ readonly schema: string } & Omit<OutboxDetails, 'payload'>) | null;
  readonly consumers: readonly Consumed[];
  readonly deadLetters: readonly ({ readonly schema: string } & DeadLetter)[];
  readonly outboxForgottenBefore: string | null;
}

async function run(args: readonly string[]): Promise<number> {
  const { values, positionals } = readArguments(args, SOURCE_OPTIONS);
  const [id, ...more] = positionals;
  if (id === undefined || more.length > 0) throw new UsageError('message takes the id of one message');
  return await withSources(values, ['outboxes', 'services'], async (sources) => {
    const path = await follow(sources, id);
    if (values.json) console.log(JSON.stringify(path));
    else print(path);
    const isFound =
      path.outbox !== null || path.deadLetters.length > 0 || path.consumers.some((c) => c.handledAt !== null);
    if (isFound) return 0;
    return path.outboxForgottenBefore === null ? 1 : 3;
  });
}

async function follow({ outboxes, services }: Sources, id: string): Promise<Path> {
  let outbox: Path['outbox'] = null;
  const horizons: string[] = [];
  for (const { schema, pool } of outboxes) {
    const { payload: _, ...found } = (await findInOutbox(pool, id)) ?? { payload: undefined };
    if ('id' in found) outbox = { schema, ...found };
    const before = await outboxForgottenBefore(pool);
    if (before !== undefined) horizons.push(before);
  }
  const consumers: Consumed[] = [];
  const deadLetters: ({ schema: string } & DeadLetter)[] = [];
  for (const source of services) {
    consumers.push(...(await consumedIn(source, id, outbox)));
    const letters = await deadLettersOf(source.pool, [id]);
    deadLetters.push(...letters.map((letter) => ({ schema: source.schema, ...letter })));
  }
  return { id, outbox, consumers, deadLetters, outboxForgottenBefore: horizons.sort().at(-1) ?? null };
}

/** The consumers of a schema that are expected to handle the message, or have. */
async function consumedIn({ schema, pool }: Source, id: string, outbox: Path['outbox']): Promise<readonly Consumed[]> {
  const found: Consumed[] = [];
  const registrations = Map.groupBy(await readRegistrations(pool), ({ consumer }) => consumer);
  for (const [consumer, registered] of registrations) {
    const expected =
      outbox?.delivery === 'required' &&
      registered.some(({ type, since }) => type === outbox.type && since <= outbox.createdAt);
    const handledAt = (await readHandled(pool, consumer, [id])).get(id) ?? null;
    const forgottenBefore = (await inboxForgottenBefore(pool)) ?? null;
    if (expected || handledAt !== null) found.push({ schema, consumer, expected, handledAt, forgottenBefore });
  }
  return found;
}

function print({ id, outbox, consumers, deadLetters, outboxForgottenBefore: forgotten }: Path): void {
  const rows: (readonly Cell[])[] = [];
  if (outbox !== null) {
    const { schema, createdAt, publishedAt, state, attempts, lastError, behind } = outbox;
    const refused = attempts === 0 ? undefined : `refused ${attempts} times before`;
    rows.push([`${schema}: outbox`, 'written', createdAt, `${outbox.type} v${outbox.version}`]);
    if (state === 'published') rows.push([`${schema}: outbox`, 'confirmed by the broker', publishedAt, refused]);
    else rows.push([`${schema}: outbox`, state, null, behind === null ? lastError : `behind ${behind}`]);
  } else if (forgotten === null && consumers.some(({ handledAt }) => handledAt !== null)) {
    rows.push(['outboxes', 'not there', null, 'its outbox came back from an older backup, or is none of these']);
  } else if (forgotten === null) rows.push(['outboxes', 'not there', null, null]);
  else rows.push(['outboxes', 'not there', null, `published messages from before ${forgotten} may have been removed`]);
  for (const { schema, consumer, handledAt, forgottenBefore } of consumers) {
    const isForgotten = forgottenBefore !== null && outbox !== null && outbox.createdAt < forgottenBefore;
    const what = handledAt !== null ? 'handled' : isForgotten ? 'unknowable' : 'not handled';
    const why = handledAt === null && isForgotten ? `ids from before ${forgottenBefore} may have been removed` : null;
    rows.push([`${schema}: ${consumer}`, what, handledAt, why]);
  }
  for (const { schema, id: number, consumer, state, lastFailedAt, createdAt, attempts, reason } of deadLetters) {
    const what = `dead letter ${number}: ${state}`;
    rows.push([`${schema}: ${consumer}`, what, lastFailedAt ?? createdAt, `${attempts} attempts: ${reason}`]);
  }
  console.log(`Message ${id}${outbox === null ? '' : ` of ${outbox.aggregateType}/${outbox.aggregateId}`}\n`);
  console.log(table([['WHERE', 'WHAT', 'WHEN', 'DETAILS'], ...rows]));
}
