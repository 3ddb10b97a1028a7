import { type DeadLetter, inboxForgottenBefore, readHeld } from '@oncebox/inbox';
import { type OutboxEntry, outboxForgottenBefore, scanOutbox } from '@oncebox/outbox';
import { expected, type Inbox, missingIn, readInboxes } from './inboxes.ts';
import type { Sources } from './sources.ts';
import { findUnwritten } from './unwritten.ts';

/** What is wrong with a message that is not published, or that one of its consumers has not handled. */
export type Problem =
  /** Not published: in turn, waiting, given up and blocking its key, given up. */
  | 'pending'
  | 'held'
  | 'parked'
  | 'released'
  /** Published, and at this consumer: in a queue or lost, held, given up, to be sent again, given up for good. `held` is above. */
  | 'not handled'
  | 'dead'
  | 'replay'
  | 'discarded'
  /** This consumer has it, and no outbox does. */
  | 'in no outbox';

export interface Finding {
  /** Of the outbox; null for what is in none. */
  readonly schema: string | null;
  readonly id: string;
  readonly type: string | null;
  readonly problem: Problem | 'in flight' | 'unknowable';
  /** `<schema>/<consumer>`, unless the message is not published. */
  readonly consumer: string | undefined;
  readonly reason: string | null;
  readonly createdAt: string;
}

export interface VerifyOptions {
  /** ISO 8601 with microseconds; messages written before are not looked at. undefined for all. */
  readonly since: string | undefined;
  /** Seconds. What was published, or written and not published, less long ago is in flight and not missing. */
  readonly settledFor: number;
  /** Whether to look for what the consumers have and no outbox has. */
  readonly looksForUnwritten: boolean;
  readonly onFinding: (finding: Finding) => void;
  readonly onProgress: (line: string) => void;
}

export interface Verification {
  readonly checked: number;
  /** Messages of each type that are published, and that nobody has registered for. */
  readonly unclaimed: ReadonlyMap<string, number>;
  /** Before this, published messages may be gone from an outbox: nothing can be said of them. */
  readonly unknowableBefore: string | undefined;
}

type Row = OutboxEntry & { readonly recent: number };

/**
 * Compares every outbox with the inboxes of the consumers that are expected to have handled its messages. Page by page, by
 * primary keys: memory does not grow with the number of messages.
 */
export async function verifyAll({ outboxes, services }: Sources, options: VerifyOptions): Promise<Verification> {
  const inboxes = await readInboxes(services);
  const unclaimed = new Map<string, number>();
  const horizons: string[] = [];
  let checked = 0;
  for (const { schema, pool } of outboxes) {
    for await (const rows of scanOutbox(pool, options)) {
      const unpublished = rows.filter(({ state }) => state !== 'published');
      const doubtful = await mayHaveBeenHandled(unpublished, inboxes);
      for (const row of unpublished) reportUnpublished(schema, row, doubtful.has(row.id), options);
      const published = rows.filter(({ state }) => state === 'published');
      for (const inbox of inboxes) await checkHandled(schema, published, inbox, options);
      for (const row of published) {
        if (row.delivery === 'optional' || inboxes.some((inbox) => expected(inbox, row).length > 0)) continue;
        unclaimed.set(row.type, (unclaimed.get(row.type) ?? 0) + 1);
      }
      checked += rows.length;
      options.onProgress(`${schema}: ${checked} messages compared`);
    }
    // After the scan: what retention took meanwhile is older than this.
    const before = await outboxForgottenBefore(pool);
    if (before !== undefined && (options.since === undefined || before > options.since)) horizons.push(before);
  }
  if (options.looksForUnwritten) await checkWritten({ outboxes, services }, options);
  return { checked, unclaimed, unknowableBefore: horizons.sort().at(-1) };
}

/**
 * Messages that are not published, and so old that an inbox may have forgotten them: where the outbox came back from a backup,
 * they may have been published and handled before, and would take effect again.
 */
async function mayHaveBeenHandled(rows: readonly Row[], inboxes: readonly Inbox[]): Promise<ReadonlySet<string>> {
  const doubtful = new Set<string>();
  if (rows.length === 0) return doubtful;
  for (const inbox of inboxes) {
    const before = (await inboxForgottenBefore(inbox.source.pool)) ?? '';
    const old = rows.filter(({ createdAt }) => createdAt < before);
    for (const { row } of await missingIn(inbox, old, expected)) doubtful.add(row.id);
  }
  return doubtful;
}

function reportUnpublished(schema: string, row: Row, isDoubtful: boolean, { onFinding }: VerifyOptions): void {
  const { id, type, state, recent, lastError, createdAt } = row;
  if (state === 'published') return;
  const problem = state === 'pending' && recent === 1 ? 'in flight' : state;
  const reason = isDoubtful ? (lastError ?? 'older than what an inbox remembers: it may have been handled') : lastError;
  onFinding({ schema, id, type, problem, consumer: undefined, reason, createdAt });
}

async function checkHandled(
  schema: string,
  published: readonly Row[],
  inbox: Inbox,
  { onFinding }: VerifyOptions,
): Promise<void> {
  const { schema: inboxSchema, pool } = inbox.source;
  const missing = await missingIn(inbox, published, expected);
  if (missing.length === 0) return;
  const held = new Map<string, ReadonlySet<string>>();
  for (const [consumer, found] of Map.groupBy(missing, ({ registration }) => registration.consumer)) {
    const ids = found.map(({ row }) => row.id);
    held.set(consumer, await readHeld(pool, consumer, ids));
  }
  // After the look at the ids: what retention took meanwhile is older than this.
  const forgottenBefore = await inboxForgottenBefore(pool);
  for (const { row, registration, letter } of missing) {
    const { consumer } = registration;
    const isHeld = held.get(consumer)?.has(row.id) ?? false;
    onFinding({
      schema,
      id: row.id,
      type: row.type,
      problem: problemOf(row, letter, isHeld, forgottenBefore),
      consumer: `${inboxSchema}/${consumer}`,
      reason: letter?.reason ?? null,
      createdAt: row.createdAt,
    });
  }
}

/** The other way round: what was handled was written. */
async function checkWritten(sources: Sources, { since, onFinding, onProgress }: VerifyOptions): Promise<void> {
  let count = 0;
  for await (const found of findUnwritten(sources, since)) {
    for (const { consumer, id, type, writtenAt } of found) {
      onFinding({ schema: null, id, type, problem: 'in no outbox', consumer, reason: null, createdAt: writtenAt });
    }
    count += found.length;
    onProgress(`${count} messages handled that are in no outbox`);
  }
}

function problemOf(
  row: Row,
  letter: DeadLetter | undefined,
  isHeld: boolean,
  forgottenBefore: string | undefined,
): Finding['problem'] {
  // One that was sent again is with the broker once more, as if it had never been dead.
  if (letter !== undefined && letter.state !== 'replayed') return letter.state;
  if (row.recent === 1) return 'in flight';
  if (isHeld) return 'held';
  return forgottenBefore !== undefined && row.createdAt < forgottenBefore ? 'unknowable' : 'not handled';
}
