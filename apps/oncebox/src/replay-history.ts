import { setTimeout as delay } from 'node:timers/promises';
import { deadLettersOf, inboxForgottenBefore, type Registration, readHandled } from '@oncebox/inbox';
import type { History, Kept } from '@oncebox/rabbitmq';
import { isoOf } from './moment.ts';
import { Report, SHOWN } from './report.ts';
import type { Source } from './sources.ts';

type Outcome = 'sent' | 'would send' | 'handled' | 'given up' | 'not taken' | 'forgotten';

const MEANING: Readonly<Record<Outcome, string>> = {
  sent: 'sent to its queue; its worker handles it, unless it has by then',
  'would send': 'would be sent',
  handled: 'left alone: it has been handled',
  'given up':
    'left alone: it is a dead letter of this consumer ("oncebox dead replay" sends it, unless it was discarded)',
  'not taken': 'left alone: its handler takes no history',
  forgotten:
    'refused, and nothing behind it was sent: it is older than what the inbox remembers, and may have been handled (--from a later time leaves it out, --force sends it)',
};

/** More are not sent while as many wait: what is announced meanwhile comes behind them, and should not come much later for it. */
const MOST_WAITING = 1_000;
const LOOK_EVERY_MS = 200;
const TELL_EVERY_MS = 2_000;

interface Request {
  /** Since when the consumer has been registered, for whatever type; see `isForgotten`. */
  readonly since: string;
  /** The first moment; the beginning of the log if absent. */
  readonly from: Date | undefined;
  readonly force: boolean;
  readonly dryRun: boolean;
}

/** Sends what the consumer has registered for and has neither handled nor given up, in the order of the log, and ends at what it may have forgotten. */
export async function replayHistory(
  history: History,
  { schema, pool }: Source,
  registrations: readonly Registration[],
  { since, from, force, dryRun }: Request,
): Promise<Report<Outcome>> {
  const report = new Report(MEANING, SHOWN);
  const registered = new Map(registrations.map((registration) => [registration.type, registration]));
  const consumer = registrations[0]?.consumer ?? '';
  let [read, told] = [0, Date.now()];
  const progress = (more = ''): void => {
    if (Date.now() - told < TELL_EVERY_MS) return;
    told = Date.now();
    console.error(`${read} messages of the log read, ${report.total} of them for ${consumer}${more}`);
  };
  const wanted = ({ received: { type, occurredAt } }: Kept): boolean =>
    registered.has(type) && (from === undefined || occurredAt === undefined || occurredAt >= from);

  await history.waiting(); // fails when there is no queue, before the log is read for nothing
  for await (const batch of history.read(from ?? 'first')) {
    read += batch.length;
    const messages = batch.filter(wanted);
    const ids = messages.map(({ received }) => received.id);
    const handled = await readHandled(pool, consumer, ids);
    const letters = await deadLettersOf(pool, ids);
    const letterStates = new Map(
      letters.filter((each) => each.consumer === consumer).map((each) => [each.messageId, each.state]),
    );
    const forgottenBefore = await inboxForgottenBefore(pool); // after that, or an id may go in between
    const outcomeOf = ({ received: { id, type, occurredAt } }: Kept): Outcome => {
      if (!registered.get(type)?.replays) return 'not taken';
      if (handled.has(id)) return 'handled';
      // One that was sent again is with the broker once more, as if it had never been dead.
      if ((letterStates.get(id) ?? 'replayed') !== 'replayed') return 'given up';
      if (!force && isForgotten(since, occurredAt, forgottenBefore)) return 'forgotten';
      return dryRun ? 'would send' : 'sent';
    };
    const all = messages.map((message) => ({ message, outcome: outcomeOf(message) }));
    const end = all.findIndex(({ outcome }) => outcome === 'forgotten');
    const known = end < 0 ? all : all.slice(0, end + 1);
    const sending = known.filter(({ outcome }) => outcome === 'sent').map(({ message }) => message);
    if (sending.length > 0)
      await untilRoom(history, (waiting) => progress(`; ${waiting} wait in its queue: is its worker running?`));
    await history.send(sending);
    report.add(
      schema,
      known.map(({ message, outcome }) => [message.received.id, outcome]),
    );
    progress();
    if (end >= 0) break;
  }
  console.error(`${read} messages of the log read`);
  return report;
}

async function untilRoom(history: History, onFull: (waiting: number) => void): Promise<void> {
  for (;;) {
    const waiting = await history.waiting();
    if (waiting <= MOST_WAITING) return;
    onFull(waiting);
    await delay(LOOK_EVERY_MS);
  }
}

/**
 * Whether the inbox may have handled a message and no longer know it. An inbox row is never older than its message; and of a consumer that
 * was added since, it has every row. That is the age of the consumer and not of the type: a rollback, or a worker of an older release beside
 * the new one, takes a type out of the registrations, and who puts it back gives it a new `since`.
 */
function isForgotten(since: string, occurredAt: Date | undefined, forgottenBefore: string | undefined): boolean {
  if (forgottenBefore === undefined || since >= forgottenBefore) return false;
  return occurredAt === undefined || isoOf(occurredAt) < forgottenBefore;
}
