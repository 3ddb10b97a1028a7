import { setTimeout as delay } from 'node:timers/promises';
import { classOf, ownerExchange, type Presence, type Problem } from '@oncebox/message';
import type { ChannelModel } from 'amqplib';
import { BrokerError } from './errors.ts';
import type { Logger } from './logger.ts';
import { claimName, takeUnused } from './owner.ts';

/** Between two announcements, on average; a quarter of the time after which the others count a worker as gone. */
const EVERY_MS = 5_000;
const FIRST_REPEAT_MS = 30_000;
const LONGEST_REPEAT_MS = 3_600_000;
/** How long a name must be seen without consumers before a service that was refused takes it. */
const UNUSED_MS = 60_000;

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
  /** Those from which the owner of the name consumes. */
  readonly queues: readonly string[];
  /** Another service has taken the name while this one consumed under it. */
  readonly onLost: () => void;
  readonly presence: Presence;
  readonly logger: Logger;
  readonly stop: AbortSignal;
}

/** Keeps a worker known to the others of its consumer, and says in the log what is wrong with the consumer's name. */
export function holdName({ name, queues, onLost, presence, logger, stop }: HoldOptions): HeldName {
  const held = Promise.withResolvers<void>();
  const tell = repeated(name, logger);
  let state: 'unclaimed' | 'held' | 'refused' = 'unclaimed';
  let claimed: { readonly connection: ChannelModel; readonly done: Promise<void> } | undefined;
  let isUnguarded = false;
  let isFailing = false;
  /** When the owner of the name was last seen to consume; on performance.now()'s clock. */
  let usedAt = Number.NEGATIVE_INFINITY;

  const announce = async (): Promise<void> => tell(await presence.announce(state === 'refused'));

  const announcing = (async () => {
    while (!stop.aborted) {
      // By chance, so that workers that started together do not write together. It rejects when `stop` ends it.
      await delay(EVERY_MS * (0.8 + Math.random() * 0.4), undefined, { signal: stop }).catch(() => undefined);
      if (stop.aborted || state === 'unclaimed') continue;
      try {
        await checkMark();
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

  /** Somebody may have taken the name while none of this service's workers consumed. */
  async function checkMark(): Promise<void> {
    if (state !== 'held' || claimed === undefined) return;
    const { connection } = claimed;
    const found = await claimName(connection, name, await presence.owner());
    if (found !== 'refused' || claimed?.connection !== connection) return;
    claimed = undefined;
    state = 'refused';
    onLost();
  }

  async function claimOn(connection: ChannelModel): Promise<void> {
    const owner = await presence.owner();
    let found = await claimName(connection, name, owner);
    if (found === 'refused' && performance.now() - usedAt > UNUSED_MS) {
      const taken = await takeUnused(connection, name, owner, queues);
      if (taken === 'used') usedAt = performance.now();
      else found = taken;
      if (found === 'held') {
        logger.warn({ consumer: name }, 'took the name from another service, of which no worker consumes');
      }
    }
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
