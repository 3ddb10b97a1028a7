import type { OutgoingMessage } from '@oncebox/message';
import type { Outcome, Publisher } from './publisher.ts';
import { keyOf, type OutboxRow, reasonOf, toOutgoing } from './row.ts';
import type { SettleEarly } from './settle-early.ts';

/** What became of the rows of one pass. Rows that are in none of the lists stay as they are: an outage, or the end of the time, came before their turn. */
export interface Dispatched {
  readonly confirmed: OutboxRow[];
  /** Of these, each once, for the log: by them a reader finds what a request has led to. */
  readonly correlationIds: Set<string>;
  /** Refused by the broker, with its reason. */
  readonly refused: { row: OutboxRow; kind: 'returned' | 'nacked'; reason: string }[];
  /** Can never be sent, with the reason. */
  readonly unsendable: { row: OutboxRow; reason: string }[];
  /** Not sent, because an earlier row of their key was refused or parked in this pass. */
  readonly behind: OutboxRow[];
  /** Why some outcomes are unknown, when some are, and of how many messages. */
  outage: string | undefined;
  unknown: number;
  /** Every row has had its turn, or stands behind one that was refused. */
  complete: boolean;
}

/**
 * Publishes rows, given in the order of `seq`: those of one key one after the other, each only once the one before is confirmed
 * and not returned; the keys side by side.
 *
 * One unconfirmed message a key, because a broker does not refuse in order: a full queue refuses one message and takes the ones
 * behind it, and of two messages of a key the first may come back unroutable while the second is delivered.
 *
 * @param until on performance.now()'s clock: what has not been sent by then stays for the next pass. A long key would outlast the lease,
 *   nothing of it would be settled, and the next pass would send the same again.
 * @param early is shown each confirm; once it has failed nothing more is sent.
 */
export async function dispatch(
  rows: readonly OutboxRow[],
  schema: string,
  publisher: Publisher,
  until: number,
  early?: Pick<SettleEarly, 'look' | 'failed'>,
): Promise<Dispatched> {
  const result: Dispatched = {
    confirmed: [],
    correlationIds: new Set(),
    refused: [],
    unsendable: [],
    behind: [],
    outage: undefined,
    unknown: 0,
    complete: true,
  };
  const chains = Map.groupBy(rows, keyOf);
  // Callbacks and one promise for all: an async function for each key is garbage for each message, and a fast drain has too much of it.
  const { promise: done, resolve } = Promise.withResolvers<void>();
  let left = chains.size;
  const end = (): void => {
    left -= 1;
    if (left === 0) resolve();
  };
  const send = (chain: readonly OutboxRow[], place: number): void => {
    const row = chain[place];
    if (row === undefined) {
      end();
    } else if (result.outage !== undefined || early?.failed === true || (place > 0 && performance.now() > until)) {
      result.complete = false;
      end();
    } else {
      const { outcome: published, correlationId } = publishRow(row, schema, publisher);
      const settled = (outcome: Outcome): void => {
        const next = note(result, row, outcome, correlationId);
        if (outcome.kind === 'confirmed') early?.look(result.confirmed);
        if (next === 'send') {
          send(chain, place + 1);
          return;
        }
        if (next === 'hold') result.behind.push(...chain.slice(place + 1));
        end();
      };
      // A rejection would end the pass, and its other messages would be sent again and again.
      published.then(settled, (error: unknown) => settled(broken(error)));
    }
  };
  for (const chain of chains.values()) send(chain, 0);
  if (left > 0) await done;
  return result;
}

/** @returns what is to become of the rows behind it in its key. */
function note(
  result: Dispatched,
  row: OutboxRow,
  outcome: Outcome,
  correlationId: string | undefined,
): 'send' | 'hold' | 'leave' {
  switch (outcome.kind) {
    case 'confirmed':
      result.confirmed.push(row);
      if (correlationId !== undefined) result.correlationIds.add(correlationId);
      return 'send';
    case 'unknown':
      result.outage = outcome.reason;
      result.unknown += 1;
      result.complete = false;
      return 'leave';
    case 'unsendable':
      result.unsendable.push({ row, reason: outcome.reason });
      return row.when_parked === 'continue' ? 'send' : 'hold';
    default:
      result.refused.push({ row, kind: outcome.kind, reason: `${outcome.kind}: ${outcome.reason}` });
      return 'hold';
  }
}

// Not async, which would be a promise more for each message.
function publishRow(
  row: OutboxRow,
  schema: string,
  publisher: Publisher,
): { readonly outcome: Promise<Outcome>; readonly correlationId: string | undefined } {
  let message: OutgoingMessage;
  try {
    message = toOutgoing(row, schema);
  } catch (error) {
    return { outcome: Promise.resolve({ kind: 'unsendable', reason: reasonOf(error) }), correlationId: undefined };
  }
  const { correlationId } = message.lineage;
  try {
    return { outcome: publisher.publish(message), correlationId };
  } catch (error) {
    return { outcome: Promise.resolve(broken(error)), correlationId };
  }
}

/**
 * A publisher must not throw or reject. One that does is tried again later and counted, as a refusal: to
 * park would give up every message of an outage that it reports in this way.
 */
const broken = (error: unknown): Outcome => ({ kind: 'nacked', reason: reasonOf(error) });
