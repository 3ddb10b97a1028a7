import { setTimeout as delay } from 'node:timers/promises';
import { assertSuitable, errorNameOf, isUnavailable, type Pool } from '@oncebox/mysql';
import { findFew, findWork, type Work } from './claim.ts';
import { Floors } from './floors.ts';
import { type PassResult, type PassSettings, pass } from './pass.ts';
import type { Publisher } from './publisher.ts';
import { keepRepaired } from './repair.ts';
import { deleteExpired } from './retention.ts';
import { PARTITIONS } from './row.ts';
import { SettleCheck, SettleError } from './settle-check.ts';
import { signal as tell } from './signals.ts';

/** Two things that log in pino's way. */
export interface RelayLogger {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface DrainSettings extends PassSettings {
  readonly lanes: number;
  readonly pollMs: number;
  readonly retentionHours: number;
  readonly cleanEveryMs: number;
}

export interface Schema {
  readonly name: string;
  /** `host:port`, for the log. */
  readonly server: string;
  readonly pool: Pool;
}

/**
 * From so many polls in vain in a row on, the pause is so many times as long: each poll is a wake-up that costs more than its query. With
 * 20 ms it is 200 ms after 4 s of nothing.
 */
const SLOWER: readonly (readonly [polls: number, times: number])[] = [
  [75, 10],
  [50, 5],
  [25, 2],
];
/** So many polls long a lane waits for what others hold. It is also how long the work of a process that has died may lie. */
const TAKEN = 5;
/** A look takes some milliseconds. One that takes so long is an outage that gives no error: a frozen server, a lost network. */
const SILENT_MS = 2_000;
/** Between two lines about the same messages that are not sent. */
const SAY_LEFT_OUT_MS = 30_000;
const ALL = Array.from({ length: PARTITIONS }, (_, partition) => partition);
/**
 * While passes come back full, the last look holds for so long: there is work where there was some, and a look is the dearest small thing of a
 * drain. What comes to another partition waits for the next look.
 */
const NO_LOOK_MS = 100;

/** Drains the outbox of one schema: lanes that each run one pass after the other, one prober for all of them, one cleaner. */
export class Drain {
  readonly #schema: Schema;
  readonly #publisher: Publisher;
  readonly #settings: DrainSettings;
  readonly #logger: RelayLogger;
  readonly #floors = new Floors();
  /** Partitions that a lane of this process holds: the others need not ask the database for them. */
  readonly #held = new Set<number>();
  /** Another start for each process and pass, so that several do not queue up for the same partitions. */
  #start = Math.floor(Math.random() * PARTITIONS);
  #backlog = false;
  /** On performance.now()'s clock. */
  #lookedAt = Number.NEGATIVE_INFINITY;
  /** What the last look has found, but for what was due in a partition that a pass has had since. */
  #found: Work = { partitions: [], due: new Set(), few: false };
  #probing: Promise<Work> | undefined;
  /** On performance.now()'s clock; infinite while nobody looks. */
  #lookingSince = Number.POSITIVE_INFINITY;
  #resting: Promise<void> | undefined;
  #idlePolls = 0;
  readonly #settleCheck: SettleCheck;
  /** Why the last pass failed, or left messages out; undefined once one has not, or there is nothing to do. */
  #unsettled: unknown;
  /** On performance.now()'s clock. */
  #saidLeftOutAt = Number.NEGATIVE_INFINITY;
  /** Why the database did not answer when it was last asked; undefined once it did. */
  #outage: unknown = Object.assign(new Error('the database has not been asked yet'), { code: 'STARTING' });

  constructor(schema: Schema, publisher: Publisher, settings: DrainSettings, logger: RelayLogger) {
    this.#schema = schema;
    this.#publisher = publisher;
    this.#settings = settings;
    this.#logger = logger;
    this.#settleCheck = new SettleCheck(schema, settings);
  }

  /**
   * @throws what the database last failed with, if it has not answered since; what the last pass failed with; ETIMEDOUT while it
   *   leaves a look without an answer.
   */
  assertAvailable(): void {
    if (this.#outage !== undefined) throw this.#outage;
    if (this.#unsettled !== undefined) throw this.#unsettled;
    if (performance.now() - this.#lookingSince < SILENT_MS) return;
    throw Object.assign(new Error('the database does not answer'), { code: 'ETIMEDOUT' });
  }

  /** Looks once and, when there is work, makes one pass over all partitions that are free. */
  async runOnce(): Promise<PassResult | undefined> {
    if (!this.#publisher.ready) return undefined;
    const probe = await this.#probe();
    return probe.partitions.length === 0 ? undefined : await this.#pass(probe, PARTITIONS);
  }

  /** Runs lanes and cleaner until the signal; resolves when every pass that was under way has ended. */
  async run(signal: AbortSignal): Promise<void> {
    const lanes = Array.from({ length: this.#settings.lanes }, () => this.#lane(signal));
    await Promise.all([...lanes, this.#clean(signal)]);
  }

  async #lane(signal: AbortSignal): Promise<void> {
    await this.#supervise(signal, async () => {
      const { partitions, due, few } = await this.#probe();
      // Asks the database even so: who waits for the broker should not learn of a second outage only when the first has ended.
      if (!this.#publisher.ready) return await pause(this.#settings.pollMs * 10, signal);
      // Work that somebody else holds is work: more of it may come, and at a free partition.
      if (partitions.length > 0) this.#idlePolls = 0;
      const wanted = partitions.filter((partition) => !this.#held.has(partition));
      if (signal.aborted) return;
      // With little to do one pass takes everything: one transaction, one fsync. With a backlog the lanes divide it.
      const share = this.#backlog ? Math.ceil(PARTITIONS / this.#settings.lanes) : PARTITIONS;
      const result = wanted.length === 0 ? undefined : await this.#pass({ partitions: wanted, due, few }, share);
      if (result === undefined) return await this.#rest(signal);
      // Another process has all of it, and goes on with it: to ask for it as often as for new work takes time from that one.
      if (result.claimed.length === 0) return await pause(jittered(this.#settings.pollMs * TAKEN), signal);
      if (result.outage !== undefined) {
        this.#logger.warn(
          { schema: this.#schema.name, reason: result.outage },
          'Publishing was interrupted; no attempt was counted',
        );
        await pause(jittered(1_000), signal);
      } else if (this.#settleCheck.problem !== undefined && result.published.length === 0) {
        await pause(jittered(250), signal);
      }
    });
  }

  /** One pause for all lanes, so that they wake together and share the next look; when idle, with the other schemas of this process too. */
  #rest(signal: AbortSignal): Promise<void> {
    if (this.#resting !== undefined) return this.#resting;
    const times = slower(++this.#idlePolls);
    const interval = this.#settings.pollMs * times;
    this.#resting = pause(times === 1 ? interval : interval - (performance.now() % interval), signal).finally(() => {
      this.#resting = undefined;
    });
    return this.#resting;
  }

  /** One probe at a time for all lanes. */
  #probe(): Promise<Work> {
    if (this.#probing !== undefined) return this.#probing;
    this.#lookingSince = performance.now();
    this.#probing = this.#look().finally(() => {
      this.#probing = undefined;
      this.#lookingSince = Number.POSITIVE_INFINITY;
    });
    return this.#probing;
  }

  async #look(): Promise<Work> {
    const { pool } = this.#schema;
    await assertSuitable(pool);
    if (this.#backlog && performance.now() - this.#lookedAt < NO_LOOK_MS) {
      return { ...this.#found, few: false }; // what was few when it was found has filled a pass since
    }
    const few = this.#backlog ? undefined : await findFew(pool, this.#settings.limits.rows);
    const work = few ?? (await findWork(pool, this.#floors.next()));
    this.#outage = undefined;
    this.#lookedAt = performance.now();
    this.#found = work;
    if (work.partitions.length === 0) {
      this.#backlog = false;
      this.#unsettled = undefined;
    }
    return work;
  }

  async #pass(probe: Work, share: number): Promise<PassResult> {
    this.#start = (this.#start + 5) % PARTITIONS;
    let claimed: readonly number[] = [];
    const onClaimed = (partitions: readonly number[]): void => {
      claimed = partitions;
      for (const partition of partitions) this.#held.add(partition);
      this.#found = { ...this.#found, due: this.#found.due.difference(new Set(partitions)) };
    };
    try {
      const check = this.#settleCheck.ofNextPass();
      if (check !== undefined) await this.#settleCheck.proveCommit();
      const request = { ...probe, share, start: this.#start, onClaimed, check };
      const result = await pass(this.#schema, this.#publisher, request, this.#settings);
      this.#note(result);
      this.#floors.raise(result.last);
      // Who came too late for all of them has learnt nothing about how much there is.
      if (result.claimed.length > 0) this.#backlog = result.full;
      if (result.published.length > 0) {
        const { correlationIds } = result;
        this.#logger.info(
          { schema: this.#schema.name, correlationIds },
          `Published messages: [${result.published.join(' ')}]`,
        );
      }
      const { refused, parked } = result;
      const at = { schema: this.#schema.name };
      if (refused > 0)
        this.#logger.warn({ ...at, refused }, 'The broker did not take some messages: they are tried again');
      if (parked > 0)
        this.#logger.error({ ...at, parked }, 'Messages can never be sent and are parked: see last_error');
      return result;
    } catch (error) {
      this.#settleCheck.failed();
      // An outage is over when the database answers, which the next look tells.
      const isOutage = isUnavailable(error) && errorNameOf(error) !== 'ONCEBOX_COMMIT_UNKNOWN';
      this.#unsettled = isOutage ? undefined : error;
      throw error;
    } finally {
      for (const partition of claimed) this.#held.delete(partition);
    }
  }

  /** Whether the relay can settle, after a pass that is committed. */
  #note({ published, refused, parked }: PassResult): void {
    const err = this.#settleCheck.problem;
    if (published.length + refused + parked > 0) {
      this.#settleCheck.succeeded();
      this.#unsettled = undefined;
    }
    if (err === undefined) return;
    this.#unsettled = err;
    if (performance.now() - this.#saidLeftOutAt < SAY_LEFT_OUT_MS) return;
    this.#saidLeftOutAt = performance.now();
    const { name } = this.#schema;
    tell('oncebox:relay:failed', { schema: name, reason: 'cannot settle' });
    this.#logger.error({ schema: name, err }, 'Some messages cannot be settled and are not sent; the others are');
  }

  async #clean(signal: AbortSignal): Promise<void> {
    const { retentionHours, deleteRows, cleanEveryMs } = this.#settings;
    const repair = keepRepaired(this.#schema, this.#logger);
    await this.#supervise(signal, async () => {
      for (const partition of deleteRows ? [] : ALL) {
        // For a moment only: a lane that wants it should not take it for another process's.
        this.#held.add(partition);
        try {
          while (!signal.aborted && (await deleteExpired(this.#schema.pool, partition, retentionHours)));
        } finally {
          this.#held.delete(partition);
        }
      }
      if (!signal.aborted) await repair();
      await pause(cleanEveryMs, signal);
    });
  }

  /** Repeats `step` until the signal. An error pauses it, longer each time, and ends nothing: the database may be away for an hour. */
  async #supervise(signal: AbortSignal, step: () => Promise<void>): Promise<void> {
    let failures = 0;
    while (!signal.aborted) {
      try {
        await step();
        failures = 0;
      } catch (error) {
        failures += 1;
        this.#outage = error;
        const { name, server } = this.#schema;
        const cannotSettle = error instanceof SettleError;
        const reason = isUnavailable(error) ? 'database away' : cannotSettle ? 'cannot settle' : 'error';
        tell('oncebox:relay:failed', { schema: name, reason });
        if (isUnavailable(error)) this.#logger.warn({ schema: name, err: error }, `Waiting for database ${server}`);
        else this.#logger.error({ schema: name, err: error }, `Draining ${name} failed; trying again`);
        await pause(jittered(Math.min(cannotSettle ? 30_000 : 5_000, 100 * 2 ** Math.min(failures, 10))), signal);
      }
    }
  }
}

const slower = (idlePolls: number): number => SLOWER.find(([polls]) => idlePolls > polls)?.[1] ?? 1;

const jittered = (milliseconds: number): number => milliseconds * (0.5 + Math.random() / 2);

/** Ends early, and without an error, at the signal. */
async function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  await delay(milliseconds, undefined, { signal }).catch(() => undefined);
}
