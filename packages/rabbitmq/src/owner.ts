import { ownerExchange } from '@oncebox/message';
import type { ChannelModel } from 'amqplib';
import { ifThere, onChannelOfItsOwn } from './channel.ts';
import { isRefusedAs } from './errors.ts';

/** `refused`: the name is another owner's. `unknown`: this user may declare no such exchange. */
export type Claim = 'held' | 'refused' | 'unknown';

/**
 * What the exchange that marks a name has as its alternate exchange. No exchange of that name is
 * ever made.
 */
const ownerMark = (consumer: string, owner: string): string => `${consumer}.${owner}`;

/**
 * Puts the owner's mark on a consumer's name, or finds it there: an exchange whose arguments say
 * whose it is. A broker compares the arguments of what is declared again, and refuses others:
 * docs/decisions/0016-whose-a-consumer-name-is.md.
 */
export async function claimName(connection: ChannelModel, consumer: string, owner: string): Promise<Claim> {
  try {
    await onChannelOfItsOwn(connection, (channel) =>
      channel.assertExchange(ownerExchange(consumer), 'fanout', {
        durable: true,
        internal: true,
        alternateExchange: ownerMark(consumer, owner),
      }),
    );
    return 'held';
  } catch (error) {
    if (isRefusedAs(406, error)) return 'refused';
    if (isRefusedAs(403, error)) return 'unknown';
    throw error;
  }
}

/**
 * Longest pause between two looks at a name's queues: who consumed in a longer one would not be
 * noticed.
 */
const LONGEST_GAP_MS = 30_000;

/**
 * Watches whether anybody consumes the queues of a name that is another owner's. An owner is gone
 * for good when its schema was made anew, or restored from a backup without its identity, and a
 * mark that outlives it must not stop its successor.
 *
 * @returns a function that looks, and says for how many milliseconds nobody was seen to consume, on
 *   one connection and without a gap. A broker that was away has no consumers when it is back, so
 *   what was seen before does not count.
 */
export function watchUse(queues: readonly string[]): (connection: ChannelModel) => Promise<number | undefined> {
  let unused: { readonly connection: ChannelModel; readonly since: number; readonly seenAt: number } | undefined;
  return async (connection) => {
    const before = unused;
    unused = undefined; // also when this look fails
    for (const queue of queues) {
      const found = await ifThere(connection, (channel) => channel.checkQueue(queue));
      if (found !== undefined && found.consumerCount > 0) return undefined;
    }
    const now = performance.now();
    const goesOn = before?.connection === connection && now - before.seenAt <= LONGEST_GAP_MS;
    const since = goesOn ? before.since : now;
    unused = { connection, since, seenAt: now };
    return now - since;
  };
}

/** Takes a name from its owner, whoever that is. */
export async function takeName(connection: ChannelModel, consumer: string, owner: string): Promise<Claim> {
  await ifThere(connection, (channel) => channel.deleteExchange(ownerExchange(consumer)));
  return await claimName(connection, consumer, owner);
}
