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
import { keysPassedOver, type PassedOver } from './claim.ts';
import type { PassSettings } from './pass.ts';
import { forget } from './retention.ts';
import { keyOf, type OutboxRow } from './row.ts';
import { park, postpone, settle, unblock } from './settle.ts';

/** What could not be settled would be sent again by each pass: so it is not sent. */
export class SettleError extends Error {
  override readonly name = 'SettleError';
  readonly code = 'ONCEBOX_CANNOT_SETTLE';

  constructor(schema: string, rows: number | 'All', cause: unknown) {
    const why = nameAndNumberOf(cause) ?? 'the error that is its cause';
    super(
      `${rows} messages of ${schema} are not sent, because what the relay writes after sending them was refused (${why}). ` +
        'Grant the relay its rights again with "oncebox migrate", or mend what refuses the statement.',
      { cause },
    );
  }
}

/** How long a schema rehearses after a pass has failed. */
const CAUTIOUS_MS = 60_000;
/** The first pause of a row that cannot be settled, and the longest. */
const FIRST_MS = 2_000;
const LONGEST_MS = 30_000;
/**
 * For finding the rows that cannot be settled among those of a pass; the rest of the pass then
 * waits with them.
 */
const SEARCH_MS = 3_000;
/**
 * A refused row that is due for so long and does not come again was deleted, or settled by another
 * relay.
 */
const FORGET_MS = 60_000;
/** No row has it. */
const NO_SEQ = '0';

interface Refused {
  readonly failures: number;
  /** On performance.now()'s clock. */
  readonly until: number;
  readonly error: unknown;
}

/** Thrown to roll the savepoint back. */
const REHEARSED = Symbol('rehearsed');

/**
 * Proves for one schema that the relay can settle, before it sends: a relay that may read and not
 * settle would send the same messages for ever. The first pass of a process rehearses, and those
 * that follow a failure. The others pay nothing.
 *
 * To rehearse is to run every statement that can follow the sending, on the rows that are to be
 * sent, in a savepoint that is rolled back. That COMMIT works shows in a transaction of its own.
 */
export class Rehearsal {
  readonly #schema: { readonly name: string; readonly pool: Pool };
  readonly #settings: PassSettings;
  readonly #refused = new Map<string, Refused>();
  /** So that rows that cannot be settled, however many, do not fill each pass. */
  readonly #passedOver = new Map<number, string>();
  #isProven = false;
  #cautiousUntil = 0;

  constructor(schema: { readonly name: string; readonly pool: Pool }, settings: PassSettings) {
    this.#schema = schema;
    this.#settings = settings;
  }

  get isDue(): boolean {
    return !this.#isProven || this.#refused.size > 0 || performance.now() < this.#cautiousUntil;
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

  /** Why some rows are not sent; undefined when none is left out. */
  get problem(): SettleError | undefined {
    const [first] = this.#refused.values();
    return first === undefined ? undefined : new SettleError(this.#schema.name, this.#refused.size, first.error);
  }

  /** What the next pass does not read. */
  get passedOver(): PassedOver {
    return new Map(this.#passedOver);
  }

  /** Nothing waits in the outbox any more. */
  forget(): void {
    this.#refused.clear();
    this.#passedOver.clear();
  }

  /** Writes, takes back what it wrote, and commits: `seq` 0 is no row's. */
  async proveCommit(): Promise<void> {
    await transaction(
      this.#schema.pool,
      async (tx) => {
        // Somebody may have left such an entry by hand.
        await tx.query(
          `INSERT INTO outbox_waiting (seq, partition_id, aggregatetype, aggregateid) VALUES (0, 0, '', '')
           ON DUPLICATE KEY UPDATE due_at = NULL`,
        );
        await tx.query('DELETE FROM outbox_waiting WHERE seq = 0');
      },
      { timeoutMs: this.#settings.timeoutMs },
    ).catch((error: unknown) => {
      throw endsThePass(error) ? error : new SettleError(this.#schema.name, 'All', error);
    });
  }

  /**
   * @returns the rows that can be settled, without those that stand behind another in their key.
   * @throws SettleError when a right is missing, which concerns all rows alike.
   */
  async rows(tx: Transaction, claimed: readonly number[], rows: readonly OutboxRow[]): Promise<readonly OutboxRow[]> {
    await this.#assertRights(tx, claimed);
    const now = performance.now();
    const tried = rows.filter(({ seq }) => (this.#refused.get(seq)?.until ?? 0) <= now);
    const refused = await this.#search(tx, claimed, tried, now + SEARCH_MS);
    for (const { seq } of tried) {
      const error = refused.get(seq);
      if (error === undefined) this.#refused.delete(seq);
      else this.#refuse(seq, error);
    }
    // Rows that are passed over are not read, and do not come again before their turn.
    if (this.#passedOver.size === 0) {
      for (const [seq, { until }] of this.#refused) if (until + FORGET_MS < now) this.#refused.delete(seq);
    }
    const stopped = new Set(await keysPassedOver(tx, this.#passedOver, rows));
    const settleable = rows.filter((row) => {
      if (this.#refused.has(row.seq)) stopped.add(keyOf(row));
      return !stopped.has(keyOf(row));
    });
    this.#moveOn(claimed, rows, settleable);
    return settleable;
  }

  /**
   * A partition of which all rows that were read are left out is read behind these next, and from
   * its beginning after its end.
   */
  #moveOn(claimed: readonly number[], rows: readonly OutboxRow[], settleable: readonly OutboxRow[]): void {
    const sent = new Set(settleable.map((row) => row.partition_id));
    const last = new Map(rows.filter(({ held }) => held === 0).map((row) => [row.partition_id, row.seq]));
    for (const partition of claimed) {
      const seq = last.get(partition);
      if (seq === undefined) this.#passedOver.delete(partition);
      else if (!sent.has(partition)) this.#passedOver.set(partition, seq);
    }
  }

  /**
   * On a row that is not there: no trigger runs, and a right that is missing concerns all rows
   * alike.
   */
  async #assertRights(tx: Transaction, claimed: readonly number[]): Promise<void> {
    try {
      await this.#rehearse(tx, claimed, [NO_SEQ], ['']);
    } catch (error) {
      throw endsThePass(error) ? error : new SettleError(this.#schema.name, 'All', error);
    }
  }

  #refuse(seq: string, error: unknown): void {
    const failures = (this.#refused.get(seq)?.failures ?? 0) + 1;
    const pause = Math.min(FIRST_MS * 2 ** Math.min(failures - 1, 10), LONGEST_MS) * (0.5 + Math.random() / 2);
    this.#refused.set(seq, { failures, until: performance.now() + pause, error });
  }

  /**
   * By halves, until the rows that are refused are found or the time is up: then all that are left
   * count as refused.
   */
  async #search(
    tx: Transaction,
    claimed: readonly number[],
    rows: readonly OutboxRow[],
    until: number,
  ): Promise<ReadonlyMap<string, unknown>> {
    if (rows.length === 0) return new Map();
    try {
      const seqs = rows.map(({ seq }) => seq);
      const ids = [...new Set(rows.map(({ aggregateid }) => aggregateid))];
      await this.#rehearse(tx, claimed, seqs, ids);
      return new Map();
    } catch (error) {
      if (endsThePass(error)) throw error;
      if (rows.length === 1 || performance.now() > until) {
        return new Map(rows.map(({ seq }) => [seq, error]));
      }
      const half = Math.ceil(rows.length / 2);
      const first = await this.#search(tx, claimed, rows.slice(0, half), until);
      const second = await this.#search(tx, claimed, rows.slice(half), until);
      return new Map([...first, ...second]);
    }
  }

  async #rehearse(
    tx: Transaction,
    claimed: readonly number[],
    seqs: readonly string[],
    ids: readonly string[],
  ): Promise<void> {
    try {
      await savepoint(tx, async (scope) => {
        await postpone(scope, seqs, 'a rehearsal', this.#settings.backoff);
        await park(scope, seqs, 'a rehearsal', true);
        await unblock(scope, seqs, ids);
        await settle(scope, seqs, this.#settings);
        if (this.#settings.deleteRows) await forget(scope, claimed);
        throw REHEARSED;
      });
    } catch (error) {
      if (error !== REHEARSED) throw error;
    }
  }
}

/**
 * It says nothing about settling: an outage, or a transaction whose rows are no longer this
 * relay's.
 */
const endsThePass = (error: unknown): boolean =>
  isUnavailable(error) || isContention(error) || isTransactionLost(error);
