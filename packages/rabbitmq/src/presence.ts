import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { classOf, ownerExchange, type Presence, type Problem } from '@oncebox/message';
import type { ChannelModel } from 'amqplib';
import { BrokerError } from './errors.ts';
import type { Logger } from './logger.ts';
import { claimName, takeName, watchUse } from './owner.ts';

/**
 * Between two announcements, on average; a quarter of the time after which the others count a
 * worker as gone.
 */
const EVERY_MS = 5_000;
const FIRST_REPEAT_MS = 30_000;
const LONGEST_REPEAT_MS = 3_600_000;
/** How long a name must be seen without consumers before a service that was refused takes it. */
const UNUSED_MS = 60_000;
/**
 * Between two looks whether the mark is still the service's; each is a channel and a declaration.
 */
const CHECK_MS = 10_000;

export interface HeldName {
  /**
   * Runs `work` whenever the name is the service's. Its signal is aborted when the name is lost,
   * and with `stop`.
   *
   * @returns when `stop` is aborted and `work` has ended.
   */
  whileHeld(work: (ending: AbortSignal) => Promise<void>): Promise<void>;
  /**
   * To be called before anything is declared or taken under the name. Once for each connection: the
   * queues of an ordered consumer share it.
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

/**
 * Keeps a worker known to the others of its consumer, and says in the log what is wrong with the
 * consumer's name.
 */
export function holdName({ name, queues, onLost, presence, logger, stop }: HoldOptions): HeldName {
  const stopped = once(stop, 'abort').then(() => undefined);
  const unusedFor = watchUse(queues);
  let tenure = newTenure();
  const tell = repeated(name, logger);
  let state: 'unclaimed' | 'held' | 'refused' = 'unclaimed';
  let claimed: { readonly connection: ChannelModel; readonly done: Promise<void> } | undefined;
  let isUnguarded = false;
  let isFailing = false;
  /** On performance.now()'s clock. */
  let checkedAt = Number.NEGATIVE_INFINITY;

  const announce = async (): Promise<void> => tell(await presence.announce(state === 'refused'));

  const announcing = (async () => {
    while (!stop.aborted) {
      // By chance, so that workers that started together do not write together. It rejects when
      // `stop` ends it.
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
    if (state !== 'held' || claimed === undefined || performance.now() - checkedAt < CHECK_MS) return;
    const { connection } = claimed;
    const found = await claimName(connection, name, await presence.owner());
    checkedAt = performance.now();
    if (found !== 'refused' || claimed?.connection !== connection) return;
    claimed = undefined;
    lose();
    onLost();
  }

  function lose(): void {
    state = 'refused';
    tenure.lost.abort();
    tenure = newTenure();
  }

  async function claimOn(connection: ChannelModel): Promise<void> {
    const owner = await presence.owner();
    let found = await claimName(connection, name, owner);
    checkedAt = performance.now();
    if (found === 'refused') {
      const unusedMs = await unusedFor(connection);
      // At its start a service takes what nobody uses. Once refused it must not take the place of a
      // service that restarts.
      if (unusedMs !== undefined && (state === 'unclaimed' || unusedMs >= UNUSED_MS)) {
        found = await takeName(connection, name, owner);
        checkedAt = Number.NEGATIVE_INFINITY; // another service may have taken it at the same moment
        if (found === 'held') {
          logger.warn({ consumer: name }, 'took the name from another service, of which no worker consumes');
        }
      }
    }
    if (found === 'refused') lose();
    else state = 'held';
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
    tenure.begun.resolve();
  }

  return {
    async whileHeld(work) {
      while (!stop.aborted) {
        const { begun, lost } = tenure;
        const ending = AbortSignal.any([lost.signal, stop]);
        await Promise.race([begun.promise, once(lost.signal, 'abort'), stopped]);
        if (!ending.aborted) await work(ending);
      }
    },
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

/** The time during which the name is the service's. */
const newTenure = () => ({ begun: Promise.withResolvers<void>(), lost: new AbortController() });

/**
 * Logs each problem when it appears, and again after pauses that grow to an hour while it lasts.
 */
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
