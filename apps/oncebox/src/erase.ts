import {
  deadLettersOf,
  eraseDeadLetters,
  eraseHeld,
  findHeldOf,
  findLettersOf,
  type HeldOfKey,
  inboxForgottenBefore,
  type LetterOfKey,
} from '@oncebox/inbox';
import { erasePayloads, eraseRows, findByKey, findPayloads, type OutboxEntry } from '@oncebox/outbox';
import { eraseSaga, findSagas, hasSagas } from '@oncebox/saga';
import { assertNone, readArguments } from './arguments.ts';
import { type Command, UsageError } from './command.ts';
import { Erasures } from './erasures.ts';
import { expected, type Inbox, isGivenUp, missingIn, readInboxes, registered } from './inboxes.ts';
import { ALL_SOURCES_HELP, noSchema, SOURCE_OPTIONS, type Source, withSources } from './sources.ts';

const HELP = `Usage: oncebox erase --key KEY [--type AGGREGATETYPE] [--discard] [--dry-run]

Erases what the tables of messaging hold of one key, the id of an aggregate: of a person, or of what belongs to a person. In every schema
that the environment names it finds
  outbox             messages that are published or released; one that is not published yet, or that is parked, is left
  dead_letters       those that were replayed or discarded, once no other consumer is still to handle the message; this reads the
                     table, as no index has the key
  held_messages      messages that wait for an ordered consumer; left without --discard
  claimed_payloads   those of the messages that are erased
  sagas              those with this id that have ended
and names what it left and why; run it again when that has changed. Published messages that an expected consumer has neither handled nor
given up are left as well, and of those with a claimed payload any that a registered consumer may still handle. After it, the outbox
proves nothing of what was written before the erased messages: "oncebox verify" says since when, and "outbox republish" cannot send them.
It erases no table of a service's own, no id in processed_messages, and nothing of the broker: docs/operations.md says what is where, and
when it is gone.

  --key KEY             the aggregate's id, byte for byte
  --type AGGREGATETYPE  only of aggregates of this type. Left then, because nothing has their type, are dead letters and held messages
                        whose outbox row is gone, and sagas
  --discard             erase also, and so give up, what is not settled at a consumer: dead letters, held messages, and published
                        messages that were not handled
  --dry-run             show what would be erased and what would be left, and change nothing
${ALL_SOURCES_HELP}

JSON: { found: [{ schema, table, id, outcome }], counts: [{ schema, table, outcome, count }] }, the first 50 found.
Exit codes: 0 nothing is left in these tables, 1 something is, or the command failed, 2 called wrongly.`;

export const eraseCommand: Command = { summary: 'erase what is stored of one key', help: HELP, run };

const { schema: _, ...SOURCES } = SOURCE_OPTIONS;
const OPTIONS = {
  ...SOURCES,
  key: { type: 'string' },
  type: { type: 'string' },
  discard: { type: 'boolean', default: false },
  'dry-run': { type: 'boolean', default: false },
} as const;

interface Request {
  readonly key: string;
  /** Of the aggregate; undefined for any. */
  readonly type: string | undefined;
  readonly discard: boolean;
  readonly dryRun: boolean;
}

async function run(args: readonly string[]): Promise<number> {
  const { values, positionals } = readArguments(args, OPTIONS);
  assertNone(positionals);
  const { key, type, discard } = values;
  if (key === undefined || key === '') throw new UsageError('erase what? --key KEY is the id of an aggregate');
  return await withSources({ service: values.service }, ['outboxes', 'services'], async ({ outboxes, services }) => {
    // With half of the schemas it would look as if all were gone.
    if (outboxes.length === 0) throw noSchema(['outboxes']);
    if (services.length === 0) throw noSchema(['services']);
    const erasures = new Erasures(values['dry-run']);
    const request = { key, type, discard, dryRun: values['dry-run'] };
    await erase(outboxes, await readInboxes(services), request, erasures);
    erasures.print(values.json);
    return erasures.exitCode();
  });
}

interface Messages {
  /** Ids of those that are in an outbox. */
  readonly written: Set<string>;
  /** Ids of those that are erased, and of those that something is left of. */
  readonly erased: Set<string>;
  readonly left: Set<string>;
  /**
   * By id, whether a consumer is still to handle the message or may fetch its payload. As it was
   * before letters went: without its letter a consumer that has given up seems to be awaited.
   */
  readonly awaited: Map<string, boolean>;
}

/**
 * What may go of the outboxes is decided first, as the dead letters tell what was given up. Their
 * rows go after what is found by them, and before the payloads: a message that is set back to
 * pending meanwhile keeps its payload.
 */
async function erase(
  outboxes: readonly Source[],
  inboxes: readonly Inbox[],
  request: Request,
  erasures: Erasures,
): Promise<void> {
  const messages: Messages = { written: new Set(), erased: new Set(), left: new Set(), awaited: new Map() };
  const erasable = new Map<Source, readonly OutboxEntry[]>();
  for (const source of outboxes) {
    console.error(`${source.schema}: looking through the outbox`);
    const rows = await findByKey(source.pool, request.key, request.type);
    for (const { id } of rows) messages.written.add(id);
    erasable.set(source, await leaveUnsettled(source, rows, inboxes, request, erasures, messages));
  }
  for (const { source } of inboxes) {
    await eraseHeldOf(source, request, erasures, messages);
    await eraseLettersOf(source, inboxes, request, erasures, messages);
    await eraseSagasOf(source, request, erasures);
  }
  for (const [source, rows] of erasable) {
    const gone = request.dryRun ? undefined : await eraseRows(source.pool, request.key, rows);
    for (const { id, seq } of rows) {
      const isGone = gone?.has(seq) ?? true;
      erasures.add(source, 'outbox', id, isGone ? 'erased' : 'not published');
      (isGone ? messages.erased : messages.left).add(id);
    }
  }
  for (const { source } of inboxes) await erasePayloadsIn(source, request, erasures, messages);
}

/** @returns the rows that may go. */
async function leaveUnsettled(
  source: Source,
  rows: readonly OutboxEntry[],
  inboxes: readonly Inbox[],
  { discard }: Request,
  erasures: Erasures,
  { left, awaited }: Messages,
): Promise<readonly OutboxEntry[]> {
  const published = rows.filter(({ state }) => state === 'published');
  const unhandled = discard ? new Set<string>() : await unhandledOf(inboxes, published);
  for (const id of unhandled) awaited.set(id, true);
  if (!discard) await lookForAwaited(inboxes, published, awaited);
  const erasable: OutboxEntry[] = [];
  for (const row of rows) {
    const { id, state } = row;
    const reason =
      state === 'pending' || state === 'held' ? 'not published' : state === 'parked' ? 'parked' : undefined;
    const outcome = reason ?? (unhandled.has(id) ? 'not handled' : awaited.get(id) ? 'on its way' : undefined);
    if (outcome === undefined) erasable.push(row);
    else {
      erasures.add(source, 'outbox', id, outcome);
      left.add(id);
    }
  }
  return erasable;
}

/**
 * Published messages that an expected consumer has neither handled nor given up, as far as its
 * inbox remembers.
 */
async function unhandledOf(inboxes: readonly Inbox[], published: readonly OutboxEntry[]): Promise<ReadonlySet<string>> {
  const unhandled = new Set<string>();
  for (let start = 0; start < published.length; start += PAGE) {
    for (const inbox of inboxes) {
      const missing = await missingIn(inbox, published.slice(start, start + PAGE), expected);
      const before = (await inboxForgottenBefore(inbox.source.pool)) ?? '';
      for (const each of missing) if (!isGivenUp(each) && each.row.createdAt >= before) unhandled.add(each.row.id);
    }
  }
  return unhandled;
}

/**
 * Notes which messages with a claimed payload a registered consumer may still handle: without the
 * payload, one that waits in a queue or for a retry is dead. That may also be an optional one, one
 * from before the consumer registered, or one that the inbox may have forgotten. What tells whose
 * payload it is stays with the payload, or a later run would not find that.
 */
async function lookForAwaited(
  inboxes: readonly Inbox[],
  messages: readonly Pick<OutboxEntry, 'id' | 'type'>[],
  awaited: Map<string, boolean>,
): Promise<void> {
  const unknown = messages.filter(({ id }) => !awaited.has(id));
  for (let start = 0; start < unknown.length; start += PAGE) {
    const page = unknown.slice(start, start + PAGE);
    const ids = page.map(({ id }) => id);
    for (const id of ids) awaited.set(id, false);
    const claimed = new Set<string>();
    for (const { source } of inboxes) for (const id of await findPayloads(source.pool, ids)) claimed.add(id);
    const claims = page.filter(({ id }) => claimed.has(id));
    for (const inbox of inboxes) {
      const missing = await missingIn(inbox, claims, registered);
      for (const each of missing) if (!isGivenUp(each)) awaited.set(each.row.id, true);
    }
  }
}

const PAGE = 500;

async function eraseHeldOf(
  source: Source,
  { key, type, discard, dryRun }: Request,
  erasures: Erasures,
  { written, erased, left }: Messages,
): Promise<void> {
  const held = await findHeldOf(source.pool, key);
  const outcomeOf = ({ messageId }: HeldOfKey) =>
    type !== undefined && !written.has(messageId) ? 'type unknown' : discard ? 'erased' : 'held';
  for (const [consumer, found] of Map.groupBy(held, (each) => each.consumer)) {
    const ids = found.filter((each) => outcomeOf(each) === 'erased').map(({ messageId }) => messageId);
    for (let start = 0; start < ids.length && !dryRun; start += PAGE) {
      await eraseHeld(source.pool, consumer, key, ids.slice(start, start + PAGE));
    }
  }
  for (const each of held) {
    const outcome = outcomeOf(each);
    erasures.add(source, 'held_messages', each.messageId, outcome);
    (outcome === 'erased' ? erased : left).add(each.messageId);
  }
}

/** By the ids of messages that are still in an outbox, and by the key in the headers. */
async function eraseLettersOf(
  source: Source,
  inboxes: readonly Inbox[],
  { key, type, discard, dryRun }: Request,
  erasures: Erasures,
  { written, erased, left, awaited }: Messages,
): Promise<void> {
  const { pool, schema } = source;
  const seen = new Set<string>();
  const eraseThese = async (found: readonly LetterOfKey[]): Promise<void> => {
    const letters = found.filter(({ id }) => !seen.has(id));
    for (const { id } of letters) seen.add(id);
    const isOfType = ({ messageId }: LetterOfKey) => type === undefined || written.has(messageId ?? '');
    const sent = letters.flatMap(({ messageId, type: of }) => (messageId && of ? [{ id: messageId, type: of }] : []));
    if (!discard) await lookForAwaited(inboxes, sent, awaited);
    // While another consumer is awaited, a letter is what proves to the next run that this one has
    // given up.
    const isAwaited = ({ messageId }: LetterOfKey) => !discard && awaited.get(messageId ?? '') === true;
    const ids = letters.filter((each) => isOfType(each) && !isAwaited(each)).map(({ id }) => id);
    const done = dryRun ? new Map() : await eraseDeadLetters(pool, ids, { discard });
    for (const letter of letters) {
      const { id, messageId, state } = letter;
      const isSettled = discard || state === 'replayed' || state === 'discarded';
      const planned = !isSettled ? state : isAwaited(letter) ? 'on its way' : 'erased';
      const outcome = isOfType(letter) ? (done.get(id) ?? planned) : 'type unknown';
      erasures.add(source, 'dead_letters', id, outcome);
      if (messageId !== null) (outcome === 'erased' ? erased : left).add(messageId);
    }
  };
  const ids = [...written];
  for (let start = 0; start < ids.length; start += PAGE) {
    await eraseThese(await deadLettersOf(pool, ids.slice(start, start + PAGE)));
  }
  let pages = 0;
  for await (const found of findLettersOf(pool, key)) {
    await eraseThese(found);
    pages += 1;
    if (pages % 20 === 0) console.error(`${schema}: ${pages * 1_000} dead letters read`);
  }
}

async function eraseSagasOf(source: Source, { key, type, dryRun }: Request, erasures: Erasures): Promise<void> {
  if (!(await hasSagas(source.pool))) return;
  for (const { name, id, state } of await findSagas(source.pool, key)) {
    if (type !== undefined) erasures.add(source, 'sagas', `${name} ${id}`, 'type unknown');
    else if (dryRun) erasures.add(source, 'sagas', `${name} ${id}`, isEnded(state) ? 'erased' : 'running');
    else erasures.add(source, 'sagas', `${name} ${id}`, await eraseSaga(source.pool, { name, id }));
  }
}

const isEnded = (state: string): boolean => state === 'completed' || state === 'compensated';

/** A payload stays for as long as anything that is left may fetch it. */
async function erasePayloadsIn(
  source: Source,
  { dryRun }: Request,
  erasures: Erasures,
  { erased, left }: Messages,
): Promise<void> {
  const ids = [...erased.union(left)];
  for (let start = 0; start < ids.length; start += PAGE) {
    const found = await findPayloads(source.pool, ids.slice(start, start + PAGE));
    const gone = found.filter((id) => !left.has(id));
    if (!dryRun) await erasePayloads(source.pool, gone);
    for (const id of found) erasures.add(source, 'claimed_payloads', id, left.has(id) ? 'needed' : 'erased');
  }
}
