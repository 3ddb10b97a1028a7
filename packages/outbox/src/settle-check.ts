import {
  isContention,
  isTransactionLost,
  isUnavailable,
  nameAndNumberOf,
  type Pool,
  savepoint,
  type Transaction,
  transaction,
} from '@oncebox/mysql';
import { keysPassedOver, type PassedOver, readReady } from './claim.ts';
import type { PassSettings } from './pass.ts';
import { forget } from './retention.ts';
import { keyOf, type OutboxRow } from './row.ts';
import { park, postpone, settle, unblock } from './settle.ts';

/** Messages are not sent, because each pass would send again what no pass can settle. */
export class SettleError extends Error {
  override readonly name = 'SettleError';
  readonly code = 'ONCEBOX_CANNOT_SETTLE';

  constructor(schema: string, rows: number | 'All', cause: unknown) {
    const why = nameAndNumberOf(cause) ?? 'the error that is its cause';
    super(
      `${rows} messages of ${schema} are not sent, because the database refuses a statement that settles them (${why}). ` +
        'Grant the relay its rights again with "oncebox migrate", or mend what refuses the statement.',
      { cause },
    );
  }
}

/** Milliseconds for which a schema makes dry runs after a pass has failed. */
const CAUTIOUS_MS = 60_000;
/** The first pause of a row that cannot be settled, and the longest. */
const FIRST_MS = 2_000;
const LONGEST_MS = 30_000;
/** For finding the rows that cannot be settled among those of a pass. */
const SEARCH_MS = 3_000;
/** Refused rows that are remembered with their pauses. Each pass tries the others again. */
const MOST_REMEMBERED = 10_000;
/** Remembered rows that a pass looks up, because it has not read them. */
const LOOKED_UP = 1_000;
/** No row has this number. */
const NO_SEQ = '0';

interface Refused {
  readonly failures: number;
  /** On performance.now()'s clock. */
  readonly until: number;
}

/** What one pass needs of the check. */
export interface PassCheck {
  /** Rows that the pass does not read, because they could not be settled a moment ago. */
  readonly passedOver: PassedOver;
  /**
   * @returns the rows that can be settled, without those that stand behind another in their key.
   * @throws SettleError when a right is missing, which concerns all rows alike.
   */
  settleable(tx: Transaction, claimed: readonly number[], rows: readonly OutboxRow[]): Promise<readonly OutboxRow[]>;
}

/**
 * Proves for one schema that the relay can settle, before it sends: a relay that may read and not
 * settle would send the same messages for ever. The first pass of a process makes a dry run, and so
 * do the passes that follow a failure. The others pay nothing.
 *
 * A dry run executes every statement that can follow the sending, on the rows that are to be sent,
 * in a savepoint that is rolled back. A transaction of its own shows that COMMIT works.
 */
export class SettleCheck {
  readonly #schema: { readonly name: string; readonly pool: Pool };
  readonly #settings: PassSettings;
  readonly #refused = new Map<string, Refused>();
  /** Why the last of them was refused. */
  #error: unknown;
  /** By this, rows that cannot be settled do not fill each pass, however many they are. */
  readonly #passedOver = new Map<number, string>();
  #isProven = false;
  #cautiousUntil = 0;

  constructor(schema: { readonly name: string; readonly pool: Pool }, settings: PassSettings) {
    this.#schema = schema;
    this.#settings = settings;
  }

  /** Undefined while the relay is known to settle. */
  ofNextPass(): PassCheck | undefined {
    const isDue = !this.#isProven || this.#refused.size > 0 || performance.now() < this.#cautiousUntil;
    if (!isDue) return undefined;
    // A copy: another lane may change the map before this pass reads its rows.
    const passedOver = new Map(this.#passedOver);
    return { passedOver, settleable: (tx, claimed, rows) => this.#settleable(tx, claimed, rows, passedOver) };
  }

  /** A pass has failed: it may have sent what it could not settle. */
  failed(): void {
    this.#isProven = false;
    this.#cautiousUntil = performance.now() + CAUTIOUS_MS;
  }

  /** A pass with rows is committed. */
  succeeded(): void {
    this.#isProven = true;
  }

  /** Why some rows are not sent; undefined when no row is left out. */
  get problem(): SettleError | undefined {
    const { size } = this.#refused;
    return size === 0 ? undefined : new SettleError(this.#schema.name, size, this.#error);
  }

  /** Writes an entry that is no row's, deletes it and commits. */
  async proveCommit(): Promise<void> {
    await transaction(
      this.#schema.pool,
      async (tx) => {
        // Somebody may have left such an entry by hand.
        await tx.query(
          `INSERT INTO outbox_waiting (seq, partition_id, aggregatetype, aggregateid) VALUES (${NO_SEQ}, 0, '', '')
           ON DUPLICATE KEY UPDATE due_at = NULL`,
        );
        await tx.query(`DELETE FROM outbox_waiting WHERE seq = ${NO_SEQ}`);
      },
      { timeoutMs: this.#settings.timeoutMs },
    ).catch((error: unknown) => {
      throw endsThePass(error) ? error : new SettleError(this.#schema.name, 'All', error);
    });
  }

  async #settleable(
    tx: Transaction,
    claimed: readonly number[],
    rows: readonly OutboxRow[],
    passedOver: PassedOver,
  ): Promise<readonly OutboxRow[]> {
    const dryRun = (seqs: readonly string[], ids: readonly string[]) => runDry(tx, claimed, seqs, ids, this.#settings);
    // On a row that is not there: no trigger runs, and a right that is missing concerns all rows.
    await dryRun([NO_SEQ], ['']).catch((error: unknown) => {
      throw endsThePass(error) ? error : new SettleError(this.#schema.name, 'All', error);
    });
    const now = performance.now();
    const due = rows.filter(({ seq }) => (this.#refused.get(seq)?.until ?? 0) <= now);
    const found: Search = { refused: new Map(), untried: new Set() };
    await search(dryRun, due, found, now + SEARCH_MS);
    for (const { seq } of due) {
      if (found.refused.has(seq)) this.#remember(seq, found.refused.get(seq));
      else if (!found.untried.has(seq)) this.#refused.delete(seq);
    }
    await this.#forgetGone(tx, rows, now);
    const isLeftOut = ({ seq }: OutboxRow): boolean =>
      this.#refused.has(seq) || found.refused.has(seq) || found.untried.has(seq);
    const stopped = new Set(await keysPassedOver(tx, passedOver, rows));
    const settleable = rows.filter((row) => {
      if (isLeftOut(row)) stopped.add(keyOf(row));
      return !stopped.has(keyOf(row));
    });
    this.#moveOn(claimed, rows, settleable);
    return settleable;
  }

  /**
   * A partition of which a pass leaves out every row is read behind these rows next, and from its
   * beginning again after its end.
   */
  #moveOn(claimed: readonly number[], rows: readonly OutboxRow[], settleable: readonly OutboxRow[]): void {
    const sent = new Set(settleable.map((row) => row.partition_id));
    const last = new Map(rows.filter(({ held }) => held === 0).map((row) => [row.partition_id, row.seq]));
    for (const partition of claimed) {
      const seq = last.get(partition);
      if (seq === undefined || this.#refused.size === 0) this.#passedOver.delete(partition);
      else if (!sent.has(partition)) this.#passedOver.set(partition, seq);
    }
  }

  #remember(seq: string, error: unknown): void {
    this.#error = error;
    const failures = (this.#refused.get(seq)?.failures ?? 0) + 1;
    if (failures === 1 && this.#refused.size >= MOST_REMEMBERED) return;
    const pause = Math.min(FIRST_MS * 2 ** Math.min(failures - 1, 10), LONGEST_MS) * (0.5 + Math.random() / 2);
    this.#refused.set(seq, { failures, until: performance.now() + pause });
  }

  /** Somebody may have deleted a refused row, or another relay may have settled it. */
  async #forgetGone(tx: Transaction, rows: readonly OutboxRow[], now: number): Promise<void> {
    const read = new Set(rows.map(({ seq }) => seq));
    const unread = this.#refused
      .entries()
      .filter(([seq, { until }]) => until <= now && !read.has(seq))
      .map(([seq]) => seq)
      .take(LOOKED_UP)
      .toArray();
    const ready = await readReady(tx, unread);
    for (const seq of unread) {
      const refused = this.#refused.get(seq);
      this.#refused.delete(seq);
      // At the end of the map, so that the next pass looks up others.
      if (refused !== undefined && ready.has(seq)) this.#refused.set(seq, refused);
    }
  }
}

/** Thrown to roll the savepoint of a dry run back. */
const DRY = Symbol('dry run');

async function runDry(
  tx: Transaction,
  claimed: readonly number[],
  seqs: readonly string[],
  aggregateIds: readonly string[],
  settings: PassSettings,
): Promise<void> {
  try {
    await savepoint(tx, async (scope) => {
      await postpone(scope, seqs, 'a dry run', settings.backoff);
      await park(scope, seqs, 'a dry run', true);
      await unblock(scope, seqs, aggregateIds);
      await settle(scope, seqs, settings);
      if (settings.deleteRows) await forget(scope, claimed);
      throw DRY;
    });
  } catch (error) {
    if (error !== DRY) throw error;
  }
}

interface Search {
  readonly refused: Map<string, unknown>;
  /** Rows for which there was no time. */
  readonly untried: Set<string>;
}

/** By halves, until the rows that are refused are found or the time is up. */
async function search(
  dryRun: (seqs: readonly string[], ids: readonly string[]) => Promise<void>,
  rows: readonly OutboxRow[],
  found: Search,
  until: number,
): Promise<void> {
  const [first] = rows;
  if (first === undefined) return;
  if (performance.now() > until) {
    for (const { seq } of rows) found.untried.add(seq);
    return;
  }
  try {
    const seqs = rows.map(({ seq }) => seq);
    await dryRun(seqs, [...new Set(rows.map(({ aggregateid }) => aggregateid))]);
  } catch (error) {
    if (endsThePass(error)) throw error;
    if (rows.length === 1) {
      found.refused.set(first.seq, error);
      return;
    }
    const half = Math.ceil(rows.length / 2);
    await search(dryRun, rows.slice(0, half), found, until);
    await search(dryRun, rows.slice(half), found, until);
  }
}

/**
 * An outage, or a transaction whose rows are no longer this relay's, says nothing about settling.
 */
const endsThePass = (error: unknown): boolean =>
  isUnavailable(error) || isContention(error) || isTransactionLost(error);
