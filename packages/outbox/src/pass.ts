import { type Pool, type Transaction, transaction } from '@oncebox/mysql';
import {
  claim,
  type Due,
  type Heads,
  isChained,
  type ReadLimits,
  read,
  readDue,
  readHeads,
  readInTurn,
  readStale,
  type Work,
} from './claim.ts';
import { type Dispatched, dispatch } from './dispatch.ts';
import type { Publisher } from './publisher.ts';
import { forget } from './retention.ts';
import { keyOf, type OutboxRow } from './row.ts';
import { type Backoff, hold, park, postpone, settle, unblock, waitForHead } from './settle.ts';
import type { PassCheck } from './settle-check.ts';
import { settleEarly } from './settle-early.ts';
import { type PassedSignal, signal, signalPass } from './signals.ts';

export interface PassSettings {
  readonly limits: ReadLimits;
  readonly backoff: Backoff;
  /** Delete rows as they are published instead of keeping them for the retention. */
  readonly deleteRows: boolean;
  /**
   * Milliseconds for the whole pass, above the publisher's own deadline and below the session's
   * wait_timeout.
   */
  readonly timeoutMs: number;
}

export interface PassResult {
  /** Partitions that this pass had locked. */
  readonly claimed: readonly number[];
  /** Ids, in the order in which they were confirmed. */
  readonly published: readonly string[];
  /** Of those that have one, each once. */
  readonly correlationIds: readonly string[];
  readonly refused: number;
  readonly parked: number;
  /**
   * The last `seq` in each partition with which this pass is done; none when an outage or the end
   * of its time cut it short.
   */
  readonly last: ReadonlyMap<number, string>;
  /** The limit of rows or, roughly, that of bytes was reached: there is probably more. */
  readonly full: boolean;
  readonly outage: string | undefined;
}

export interface PassRequest extends Work {
  /** Most partitions to lock. */
  readonly share: number;
  /** Where to begin looking for them. */
  readonly start: number;
  readonly onClaimed?: (partitions: readonly number[]) => void;
  /** Absent while the relay is known to settle. */
  readonly check?: PassCheck | undefined;
}

/**
 * One pass: lock partitions, read, publish, await every confirm, settle, commit; all in one
 * transaction, whose row locks on `outbox_partition` are the lease. While they are held nobody else
 * publishes for these partitions, and when the session ends, for whatever reason, they are free. A
 * session that has lost them can no longer settle, because it has lost its transaction.
 */
export async function pass(
  schema: { readonly name: string; readonly pool: Pool },
  publisher: Publisher,
  request: PassRequest,
  settings: PassSettings,
): Promise<PassResult> {
  const { check } = request;
  const began = performance.now();
  let passed: { readonly dispatched: Dispatched; readonly readAt: number; readonly sentAt: number } | undefined;
  const result = await transaction(
    schema.pool,
    async (tx) => {
      const claimed = await claim(tx, request.partitions, request.share, request.start);
      request.onClaimed?.(claimed);
      if (claimed.length === 0) return { ...NOTHING, claimed };
      signal('oncebox:relay:claimed', { schema: schema.name, partitions: claimed });
      const dueHere = claimed.filter((partition) => request.due.has(partition));
      const due = dueHere.length === 0 ? [] : await readDue(tx, dueHere, settings.limits.rows);
      const inTurn = await readInTurn(tx, due);
      const rows = await read(tx, claimed, inTurn, settings.limits, request.few, check?.passedOver);
      // Asked for only while anything waits, so that it costs nothing while nothing fails.
      const heads = rows[0]?.anything_waits === 1 ? await readHeads(tx, rows) : NO_HEADS;
      const turns = new Set(inTurn);
      const behind = heads.size === 0 ? [] : blockedOf(rows, heads, isChained(due) ? turns : new Set());
      if (due.length > 0) await tidy(tx, due, rows, turns, behind);
      // Those behind a head too: what holds them may be refused as well, after the others are sent.
      const settleable = (await check?.settleable(tx, claimed, rows)) ?? rows;
      const leftOut = rows.length - settleable.length;
      const kept = new Set(settleable);
      const blocked = leftOut === 0 ? behind : behind.filter((row) => kept.has(row));
      const waits = new Set(blocked);
      const sendable = blocked.length === 0 ? settleable : settleable.filter((row) => !waits.has(row));
      const readAt = performance.now();
      // A quarter, so that the confirm of the last one and the settling have time, and a stop does
      // not wait for a long key.
      const sendUntil = readAt + Math.min(SENDING_MS, settings.timeoutMs / 4);
      const early = settleEarly(tx, settings);
      const dispatched = await dispatch(sendable, schema.name, publisher, sendUntil, early);
      if (rows.length > 0) passed = { dispatched, readAt, sentAt: performance.now() };
      const outcome = {
        published: dispatched.confirmed.map((row) => row.id),
        refused: dispatched.refused.length,
        parked: dispatched.unsendable.length,
      };
      signalPass('published', schema.name, outcome);
      const settled = await early.done();
      await record(tx, dispatched, settled, blocked, settings);
      if (settings.deleteRows && dispatched.confirmed.length > 0) await forget(tx, claimed);
      signalPass('settled', schema.name, outcome);
      return {
        claimed,
        ...outcome,
        correlationIds: [...dispatched.correlationIds],
        last: dispatched.complete && leftOut === 0 && !check?.passedOver.size ? lastReady(rows) : new Map(),
        full: isFull(rows, settings.limits),
        outage: dispatched.outage,
      };
    },
    // Once: the closure publishes, and the next pass is the retry.
    { attempts: 1, timeoutMs: settings.timeoutMs },
  );
  signalPass('committed', schema.name, result);
  if (passed !== undefined) {
    const { dispatched, readAt, sentAt } = passed;
    signal('oncebox:relay:passed', {
      schema: schema.name,
      ...countsOf(dispatched),
      claimSeconds: (readAt - began) / 1_000,
      publishSeconds: (sentAt - readAt) / 1_000,
      settleSeconds: (performance.now() - sentAt) / 1_000,
    });
  }
  return result;
}

function countsOf({
  confirmed,
  refused,
  unsendable,
  unknown,
}: Dispatched): Pick<PassedSignal, 'confirmed' | 'returned' | 'nacked' | 'unsendable' | 'unknown'> {
  const returned = refused.filter(({ kind }) => kind === 'returned').length;
  return {
    confirmed: confirmed.length,
    returned,
    nacked: refused.length - returned,
    unsendable: unsendable.length,
    unknown,
  };
}

/**
 * For how long a pass sends: a key goes out at one message a confirm, and with a thousand of its
 * rows would outlast the lease. Short, because the other keys of its partitions wait for the
 * commit.
 */
const SENDING_MS = 1_000;
const NO_HEADS: Heads = new Map();
const NOTHING = {
  published: [],
  correlationIds: [],
  refused: 0,
  parked: 0,
  last: new Map(),
  full: false,
  outage: undefined,
};

/** Each partition has its share of the bytes, and few use theirs up: half of them all is much. */
const isFull = (rows: readonly OutboxRow[], { rows: most, bytes }: ReadLimits): boolean =>
  rows.length >= most || rows.reduce((sum, { payload }) => sum + payload.length, 0) >= bytes / 2;

/** Held rows say nothing about the rows before them: they are read out of turn. */
const lastReady = (rows: readonly OutboxRow[]): Map<number, string> =>
  new Map(rows.filter((row) => row.held === 0).map((row) => [row.partition_id, row.seq]));

/** Whether a row stands behind a waiting row of its key. */
const isBehind = (row: OutboxRow, heads: Heads): boolean => {
  const head = heads.get(keyOf(row));
  return head !== undefined && BigInt(row.seq) > BigInt(head);
};

/**
 * The rows that stand behind the head of their key. Those `inTurn` follow their head in this pass,
 * up to a ready row between them: it has to wait for its turn, and must not be overtaken.
 */
function blockedOf(rows: readonly OutboxRow[], heads: Heads, inTurn: ReadonlySet<string>): readonly OutboxRow[] {
  const interrupted = new Set<string>();
  return rows.filter((row) => {
    if (!isBehind(row, heads) || (inTurn.has(row.seq) && !interrupted.has(keyOf(row)))) return false;
    interrupted.add(keyOf(row));
    return true;
  });
}

/**
 * Entries that are due and were not sent would be found due for ever: those that are not their
 * key's head wait for it again, and those whose row was deleted or settled by hand go, so that the
 * next one of their key can.
 */
async function tidy(
  tx: Transaction,
  due: readonly Due[],
  rows: readonly OutboxRow[],
  turns: ReadonlySet<string>,
  blocked: readonly OutboxRow[],
): Promise<void> {
  const notHeads = new Set(blocked.map((row) => row.seq));
  const outOfTurn = due.filter(({ seq }) => !turns.has(seq) || notHeads.has(seq));
  await waitForHead(
    tx,
    outOfTurn.map(({ seq }) => seq),
  );
  const found = new Set(rows.map((row) => row.seq));
  const stale = await readStale(
    tx,
    due.filter(({ seq }) => !found.has(seq)),
  );
  await unblock(
    tx,
    stale.map(({ seq }) => seq),
    [...new Set(stale.map(({ aggregateid }) => aggregateid))],
  );
}

async function record(
  tx: Transaction,
  { confirmed, refused, unsendable, behind }: Dispatched,
  settled: number,
  blocked: readonly OutboxRow[],
  settings: PassSettings,
): Promise<void> {
  const seqs = (rows: readonly OutboxRow[]): string[] => rows.map((row) => row.seq);
  await settle(tx, seqs(confirmed.slice(settled)), settings);
  for (const [reason, failures] of Map.groupBy(refused, (failure) => failure.reason)) {
    await postpone(tx, seqs(failures.map((failure) => failure.row)), reason, settings.backoff);
  }
  for (const { row, reason } of unsendable) await park(tx, [row.seq], reason, row.when_parked === 'hold');
  await hold(tx, seqs([...behind, ...blocked].filter((row) => row.held === 0)));
  const passedOver = unsendable.map(({ row }) => row).filter((row) => row.when_parked === 'continue');
  const gone = [...confirmed, ...passedOver].filter((row) => row.held === 1);
  await unblock(tx, seqs(gone), [...new Set(gone.map((row) => row.aggregateid))]);
}
