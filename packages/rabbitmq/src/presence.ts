import { setTimeout as delay } from 'node:timers/promises';
import { classOf, ownerExchange, type Presence, type Problem } from '@oncebox/message';
import type { ChannelModel } from 'amqplib';
import { BrokerError } from './errors.ts';
import { isRefusedAs, onChannelOfItsOwn } from './exchange.ts';
import type { Logger } from './logger.ts';

/** Between two announcements, on average; a quarter of the time after which the others count a worker as gone. */
const EVERY_MS = 5_000;
const FIRST_REPEAT_MS = 30_000;
const LONGEST_REPEAT_MS = 3_600_000;

/** What the exchange that marks a name has as its alternate exchange. No exchange of that name is ever made. */
export const ownerMark = (consumer: string, owner: string): string => `${consumer}.${owner}`;

/**
 * Puts the owner's mark on a consumer's name, or finds it there: an exchange whose arguments say whose it is. A broker compares the
 * arguments of what is declared again, and refuses others: docs/decisions/0016-whose-a-consumer-name-is.md.
 *
 * @returns `refused` for a name that is another owner's; `unknown` when this user may declare no such exchange.
 */
export async function claimName(
  connection: ChannelModel,
  consumer: string,
  owner: string,
): Promise<'held' | 'refused' | 'unknown'> {
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

export interface HeldName {
  /** Resolves when the name is known to be the service's. */
  readonly held: Promise<void>;
  /**
   * To be called before anything is declared or taken under the name. Once for each connection: the queues of an ordered consumer share it.
   *
   * @throws BrokerError ONCEBOX_CONSUMER_NAME_TAKEN
   */
  claim(connection: ChannelModel): Promise<void>;
  /** @returns when the worker is written down as gone, after `stop` was aborted. */
  leave(): Promise<void>;
}

interface HoldOptions {
  readonly name: string;
  readonly presence: Presence;
  readonly logger: Logger;
  readonly stop: AbortSignal;
}

/** Keeps a worker known to the others of its consumer, and says in the log what is wrong with the consumer's name. */
export function holdName({ name, presence, logger, stop }: HoldOptions): HeldName {
  const held = Promise.withResolvers<void>();
  const tell = repeated(name, logger);
  let state: 'unclaimed' | 'held' | 'refused' = 'unclaimed';
  let claimed: { readonly connection: ChannelModel; readonly done: Promise<void> } | undefined;
  let isUnguarded = false;
  let isFailing = false;

  const announce = async (): Promise<void> => tell(await presence.announce(state === 'refused'));

  const announcing = (async () => {
    while (!stop.aborted) {
      // By chance, so that workers that started together do not write together. It rejects when `stop` ends it.
      await delay(EVERY_MS * (0.8 + Math.random() * 0.4), undefined, { signal: stop }).catch(() => undefined);
      if (stop.aborted || state === 'unclaimed') continue;
      try {
        await announce();
        isFailing = false;
      } catch (error) {
        if (!isFailing) {
          logger.warn({ consumer: name, error: classOf(error) }, 'could not tell the other workers of this one');
        }
        isFailing = true;
      }
    }
  })();

  async function claimOn(connection: ChannelModel): Promise<void> {
    const found = await claimName(connection, name, await presence.owner());
    state = found === 'refused' ? 'refused' : 'held';
    if (found === 'unknown' && !isUnguarded) {
      isUnguarded = true;
      logger.warn(
        { consumer: name },
        `another service with a consumer of this name would not be noticed: this user may not declare the exchange ${ownerExchange(name)}`,
      );
    }
    await announce();
    if (state === 'refused') {
      throw new BrokerError('ONCEBOX_CONSUMER_NAME_TAKEN', `The consumer name ${name} belongs to another service`);
    }
    held.resolve();
  }

  return {
    held: held.promise,
    claim(connection) {
      if (claimed?.connection === connection) return claimed.done;
      const done = claimOn(connection);
      claimed = { connection, done };
      done.catch(() => {
        if (claimed?.done === done) claimed = undefined;
      });
      return done;
    },
    async leave() {
      await announcing;
      if (state === 'unclaimed') return;
      await presence.leave().catch((error: unknown) => {
        logger.warn({ consumer: name, error: classOf(error) }, 'the other workers learn later that this one is gone');
      });
    },
  };
}

/** Logs each problem when it appears, and again after pauses that grow to an hour while it lasts. */
function repeated(name: string, logger: Logger): (problems: readonly Problem[]) => void {
  const told = new Map<string, { readonly at: number; readonly pauseMs: number }>();
  return (problems) => {
    const now = performance.now();
    const current = new Set(problems.map(({ what }) => what));
    for (const what of told.keys()) if (!current.has(what)) told.delete(what);
    for (const { code, what, command } of problems) {
      const last = told.get(what);
      if (last !== undefined && now - last.at < last.pauseMs) continue;
      const pauseMs = last === undefined ? FIRST_REPEAT_MS : Math.min(2 * last.pauseMs, LONGEST_REPEAT_MS);
      told.set(what, { at: now, pauseMs });
      // Nothing is consumed under a name that is taken; with the others the consumer goes on.
      const log = code === 'ONCEBOX_CONSUMER_NAME_TAKEN' ? logger.error : logger.warn;
      log.call(logger, { consumer: name, code, command }, `${code}: ${what}: ${command}`);
    }
  };
}
