import {
  type DeadLetter,
  deadLettersOf,
  inboxForgottenBefore,
  type Registration,
  readHandled,
  readRegistrations,
} from '@oncebox/inbox';
import { type OutboxEntry, outboxForgottenBefore, scanOutbox } from '@oncebox/outbox';
import type { Source, Sources } from './sources.ts';

/** What is wrong with a message that is not published, or that one of its consumers has not handled. */
export type Problem =
  /** Not published: in turn, waiting, given up and blocking its key, given up. */
  | 'pending'
  | 'held'
  | 'parked'
  | 'released'
  /** Published, and at this consumer: in a queue or lost, given up, to be sent again, given up for good. */
  | 'not handled'
  | 'dead'
  | 'replay'
  | 'discarded';

export interface Finding {
  readonly schema: string;
  readonly id: string;
  readonly type: string;
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

interface Inbox {
  readonly source: Source;
  readonly registrations: readonly Registration[];
}

type Row = OutboxEntry & { readonly recent: number };

/**
 * Compares every outbox with the inboxes of the consumers that are expected to have handled its messages. Page by page, by
 * primary keys: memory does not grow with the number of messages.
 */
export async function verifyAll({ outboxes, services }: Sources, options: VerifyOptions): Promise<Verification> {
  const inboxes: Inbox[] = [];
  for (const source of services) inboxes.push({ source, registrations: await readRegistrations(source.pool) });
  const unclaimed = new Map<string, number>();
  const horizons: string[] = [];
  let checked = 0;
  for (const { schema, pool } of outboxes) {
    for await (const rows of scanOutbox(pool, options)) {
      for (const row of rows) reportUnpublished(schema, row, options);
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
  return { checked, unclaimed, unknowableBefore: horizons.sort().at(-1) };
}

function reportUnpublished(schema: string, row: Row, { onFinding }: VerifyOptions): void {
  const { id, type, state, recent, lastError, createdAt } = row;
  if (state === 'published') return;
  const problem = state === 'pending' && recent === 1 ? 'in flight' : state;
  onFinding({ schema, id, type, problem, consumer: undefined, reason: lastError, createdAt });
}

/** Nobody needs an optional message: the broker may drop it. */
const expected = ({ registrations }: Inbox, row: Row): readonly Registration[] =>
  row.delivery === 'optional'
    ? []
    : registrations.filter(({ type, since }) => type === row.type && since <= row.createdAt);

async function checkHandled(
  schema: string,
  published: readonly Row[],
  inbox: Inbox,
  { onFinding }: VerifyOptions,
): Promise<void> {
  const { schema: inboxSchema, pool } = inbox.source;
  const pairs = published.flatMap((row) => expected(inbox, row).map(({ consumer }) => ({ row, consumer })));
  const missing = [];
  for (const [consumer, ofConsumer] of Map.groupBy(pairs, (pair) => pair.consumer)) {
    const handled = await readHandled(
      pool,
      consumer,
      ofConsumer.map(({ row }) => row.id),
    );
    missing.push(...ofConsumer.filter(({ row }) => !handled.has(row.id)));
  }
  if (missing.length === 0) return;
  const letters = await deadLettersOf(pool, [...new Set(missing.map(({ row }) => row.id))]);
  // After the look at the ids: what retention took meanwhile is older than this.
  const forgottenBefore = await inboxForgottenBefore(pool);
  for (const { row, consumer } of missing) {
    const letter = letters.findLast((each) => each.consumer === consumer && each.messageId === row.id);
    onFinding({
      schema,
      id: row.id,
      type: row.type,
      problem: problemOf(row, letter, forgottenBefore),
      consumer: `${inboxSchema}/${consumer}`,
      reason: letter?.reason ?? null,
      createdAt: row.createdAt,
    });
  }
}

function problemOf(row: Row, letter: DeadLetter | undefined, forgottenBefore: string | undefined): Finding['problem'] {
  // One that was sent again is with the broker once more, as if it had never been dead.
  if (letter !== undefined && letter.state !== 'replayed') return letter.state;
  if (row.recent === 1) return 'in flight';
  return forgottenBefore !== undefined && row.createdAt < forgottenBefore ? 'unknowable' : 'not handled';
}
