import { type DeadLetter, deadLettersOf, type Registration, readHandled, readRegistrations } from '@oncebox/inbox';
import type { OutboxEntry } from '@oncebox/outbox';
import type { Source } from './sources.ts';

/** A schema of consumers, and who has registered there for what. */
export interface Inbox {
  readonly source: Source;
  readonly registrations: readonly Registration[];
}

export async function readInboxes(services: readonly Source[]): Promise<readonly Inbox[]> {
  const inboxes: Inbox[] = [];
  for (const source of services) inboxes.push({ source, registrations: await readRegistrations(source.pool) });
  return inboxes;
}

/** Who is expected to handle a message. Nobody needs an optional one: the broker may drop it. */
export const expected = (
  { registrations }: Inbox,
  row: Pick<OutboxEntry, 'delivery' | 'type' | 'createdAt'>,
): readonly Registration[] =>
  row.delivery === 'optional'
    ? []
    : registrations.filter(({ type, since }) => type === row.type && since <= row.createdAt);

/**
 * Who may get a message, expected or not. Also those that have registered since it was written:
 * their queue may have been there before, and gets the message when it is sent again.
 */
export const registered = ({ registrations }: Inbox, { type }: Pick<OutboxEntry, 'type'>): readonly Registration[] =>
  registrations.filter((each) => each.type === type);

export interface Missing<Row> {
  readonly row: Row;
  readonly registration: Registration;
  /** The latest of this message and consumer. */
  readonly letter: DeadLetter | undefined;
}

/** Whether the consumer handles it no more, unless somebody asks for it. */
export const isGivenUp = ({ letter }: Missing<unknown>): boolean => letter !== undefined && letter.state !== 'replayed';

/**
 * The messages that consumers of an inbox have no record of, among those of which `concerns` names
 * the consumers.
 */
export async function missingIn<Row extends { readonly id: string }>(
  inbox: Inbox,
  rows: readonly Row[],
  concerns: (inbox: Inbox, row: Row) => readonly Registration[],
): Promise<readonly Missing<Row>[]> {
  const { pool } = inbox.source;
  const pairs = rows.flatMap((row) => concerns(inbox, row).map((registration) => ({ row, registration })));
  const missing: typeof pairs = [];
  for (const [consumer, ofConsumer] of Map.groupBy(pairs, ({ registration }) => registration.consumer)) {
    const ids = ofConsumer.map(({ row }) => row.id);
    const handled = await readHandled(pool, consumer, ids);
    missing.push(...ofConsumer.filter(({ row }) => !handled.has(row.id)));
  }
  const letters = await deadLettersOf(pool, [...new Set(missing.map(({ row }) => row.id))]);
  return missing.map(({ row, registration }) => ({
    row,
    registration,
    letter: letters.findLast((each) => each.consumer === registration.consumer && each.messageId === row.id),
  }));
}
