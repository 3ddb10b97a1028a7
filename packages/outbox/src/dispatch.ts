import { MessageError, type OutgoingMessage } from '@oncebox/message';
import type { Outcome, Publisher } from './publisher.ts';
import { keyOf, type OutboxRow, toOutgoing } from './row.ts';

/** What became of the rows of one pass. Rows that are in none of the lists stay as they are: an outage, or the end of the time, came before their turn. */
export interface Dispatched {
  readonly confirmed: OutboxRow[];
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
 */
export async function dispatch(
  rows: readonly OutboxRow[],
  schema: string,
  publisher: Publisher,
  until: number,
): Promise<Dispatched> {
  const result: Dispatched = {
    confirmed: [],
    refused: [],
    unsendable: [],
    behind: [],
    outage: undefined,
    unknown: 0,
    complete: true,
  };
  const keys = Map.groupBy(rows, keyOf);
  await Promise.all(
    Array.from(keys.values(), async (chain) => {
      for (const [place, row] of chain.entries()) {
        if (result.outage !== undefined || (place > 0 && performance.now() > until)) {
          result.complete = false;
          return;
        }
        const outcome = await publishRow(row, schema, publisher);
        if (outcome.kind === 'confirmed') {
          result.confirmed.push(row);
          continue;
        }
        if (outcome.kind === 'unknown') {
          result.outage = outcome.reason;
          result.unknown += 1;
          result.complete = false;
          return;
        }
        if (outcome.kind === 'unsendable') {
          result.unsendable.push({ row, reason: outcome.reason });
          if (row.when_parked === 'continue') continue;
        } else {
          const { kind, reason } = outcome;
          result.refused.push({ row, kind, reason: `${kind}: ${reason}` });
        }
        result.behind.push(...chain.slice(place + 1));
        return;
      }
    }),
  );
  return result;
}

// Not async: it runs for each message, and a promise more for each costs a fast drain some of its pace.
function publishRow(row: OutboxRow, schema: string, publisher: Publisher): Outcome | Promise<Outcome> {
  let outgoing: OutgoingMessage;
  try {
    outgoing = toOutgoing(row, schema);
  } catch (error) {
    if (error instanceof MessageError) return { kind: 'unsendable', reason: `${error.code}: ${error.message}` };
    throw error;
  }
  return publisher.publish(outgoing);
}
