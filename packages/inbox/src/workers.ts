import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { type Binding, deadQueue, orderedQueues, type Presence, queuedDelays, retryQueue } from '@oncebox/message';
import { asBytes, type Pool, statementsOf, type Transaction } from '@oncebox/mysql';
import type { ResultSetHeader, RowDataPacket } from 'mysql2/promise';
import type { Consumer } from './consumer.ts';
import { InboxError } from './errors.ts';
import { readProblems } from './problems.ts';

// consumer_workers and consumer_bindings: which processes work for a consumer, and what its queue
// is bound for. All moments are by the database's clock.

/** After which a worker counts as gone. It renews its row four times as often. */
const LEASE_SECONDS = 20;
/** Milliseconds for one statement of an announcement, and of the last one. */
const ANNOUNCE_MS = 5_000;
const LEAVE_MS = 2_000;

type Db = Pick<Transaction, 'query' | 'execute'>;

/** What a worker has written down of its consumer. */
export interface WorkerDefinition {
  readonly versions: Consumer['versions'];
  readonly bindings: Consumer['bindings'];
  readonly ordered: boolean;
  readonly queues: readonly string[];
}

export interface LiveWorker {
  readonly worker: string;
  readonly definition: WorkerDefinition;
}

const definitionOf = ({ name, versions, bindings, ordered, retryDelaysMs }: Consumer): WorkerDefinition => ({
  versions,
  bindings,
  ordered: ordered !== undefined,
  queues: [
    ...(ordered === undefined
      ? [name, ...queuedDelays(retryDelaysMs).map((delay) => retryQueue(name, delay))]
      : orderedQueues(name)),
    deadQueue(name),
  ],
});

/** What we have written, or a release beside this one: the fields that both know. */
export const parseDefinition = (text: string): WorkerDefinition => JSON.parse(text);

/** The workers that consume now: one range of the primary key, without a lock. */
export async function liveWorkers(db: Pick<Transaction, 'query'>, consumer: string): Promise<LiveWorker[]> {
  const [rows] = await db.query<(RowDataPacket & { worker: string; definition: string })[]>(
    `SELECT worker, definition FROM consumer_workers
      WHERE consumer = ? AND refused = 0 AND lease_until > UTC_TIMESTAMP(6)`,
    [asBytes(consumer)],
  );
  return rows.map(({ worker, definition }) => ({ worker, definition: parseDefinition(definition) }));
}

/**
 * @throws InboxError ONCEBOX_NO_IDENTITY when somebody has deleted the row that the migration made.
 */
export async function readOwner(db: Pick<Transaction, 'query'>): Promise<string> {
  const [[row]] = await db.query<(RowDataPacket & { id: string })[]>(
    'SELECT id FROM service_identity ORDER BY id LIMIT 1',
  );
  if (row !== undefined) return row.id;
  throw new InboxError(
    'ONCEBOX_NO_IDENTITY',
    'service_identity has no row: restore it, or INSERT INTO service_identity (id) VALUES (UUID()) and take over the names of the ' +
      'consumers with "oncebox consumers take"',
  );
}

export function presenceOf(pool: Pool, consumer: Consumer): Presence {
  const { name } = consumer;
  const worker = randomUUID();
  const place = `${hostname()}:${process.pid}`;
  const definition = JSON.stringify(definitionOf(consumer));
  // No transaction: each statement is right by itself, and comes again with the next announcement.
  const db = statementsOf(pool, ANNOUNCE_MS);
  let owner: string | undefined;

  async function renew(refused: boolean): Promise<void> {
    const [{ affectedRows }] = await db.execute<ResultSetHeader>(
      `UPDATE consumer_workers SET refused = ?, lease_until = TIMESTAMPADD(SECOND, ${LEASE_SECONDS}, UTC_TIMESTAMP(6))
        WHERE consumer = ? AND worker = ?`,
      [refused ? 1 : 0, name, worker],
    );
    if (affectedRows > 0) return;
    await db.execute(
      `INSERT INTO consumer_workers (consumer, worker, place, definition, refused, lease_until)
       VALUES (?, ?, ?, ?, ?, TIMESTAMPADD(SECOND, ${LEASE_SECONDS}, UTC_TIMESTAMP(6)))`,
      [name, worker, place, definition, refused ? 1 : 0],
    );
  }

  return {
    async owner() {
      owner ??= await readOwner(db);
      return owner;
    },
    async announce(refused) {
      await forgetGone(db, name);
      await renew(refused);
      if (!refused) await markBindings(db, name);
      return await readProblems(db, name);
    },
    async leave() {
      const last = statementsOf(pool, LEAVE_MS);
      // Not deleted: the last row tells since when nobody consumes. One that was refused never did.
      await last.execute(
        'UPDATE consumer_workers SET lease_until = UTC_TIMESTAMP(6) WHERE consumer = ? AND worker = ?',
        [name, worker],
      );
      await last.execute('DELETE FROM consumer_workers WHERE consumer = ? AND worker = ? AND refused = 1', [
        name,
        worker,
      ]);
    },
  };
}

/**
 * By a read without a lock and then by primary key: a DELETE by time would lock the rows of workers
 * that renew theirs.
 */
async function forgetGone(own: Db, consumer: string): Promise<void> {
  const [gone] = await own.execute<(RowDataPacket & { worker: string })[]>(
    'SELECT worker FROM consumer_workers WHERE consumer = ? AND lease_until <= UTC_TIMESTAMP(6) ORDER BY worker',
    [consumer],
  );
  for (const { worker } of gone) {
    await own.execute(
      'DELETE FROM consumer_workers WHERE consumer = ? AND worker = ? AND lease_until <= UTC_TIMESTAMP(6)',
      [consumer, worker],
    );
  }
}

const keyOf = ({ type, exchange, routingKey }: Binding & { readonly type: string }): string =>
  JSON.stringify([type, exchange, routingKey]);

/**
 * Writes down since when no live worker has a binding. Writes nothing while nothing has changed,
 * which is nearly always.
 */
async function markBindings(own: Db, consumer: string): Promise<void> {
  const live = await liveWorkers(own, consumer);
  const wanted = new Set(live.flatMap(({ definition }) => definition.bindings.map(keyOf)));
  const [rows] = await own.execute<
    (RowDataPacket & { type: string; exchange: string; routingKey: string; marked: number })[]
  >(
    `SELECT type, exchange, routing_key AS routingKey, unhandled_since IS NOT NULL AS marked FROM consumer_bindings
      WHERE consumer = ? ORDER BY type, exchange, routing_key`,
    [consumer],
  );
  for (const { type, exchange, routingKey, marked } of rows) {
    const isHandled = wanted.has(keyOf({ type, exchange, routingKey }));
    if (isHandled === (marked === 0)) continue;
    await own.execute(
      `UPDATE consumer_bindings SET unhandled_since = ${isHandled ? 'NULL' : 'UTC_TIMESTAMP(6)'}
        WHERE consumer = ? AND type = ? AND exchange = ? AND routing_key = ?`,
      [consumer, type, exchange, routingKey],
    );
  }
}
