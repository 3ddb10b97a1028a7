import { decodeLineage } from '@oncebox/message';
import { type Pool, type Transaction, transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import type { Position } from './machine.ts';
import { lock, remember, type SagaKey } from './store.ts';

// What people and scripts ask of sagas. Plain reads, but for `resumeSaga`.

export type SagaState = Position['state'];

/** A saga without its data. Times are ISO 8601 in UTC. */
export interface SagaEntry extends SagaKey, Position {
  /** When its step's command is sent again or given up; null when it does not wait for that. */
  readonly dueAt: string | null;
  readonly createdAt: string;
  readonly updatedAt: string;
}

export interface SagaDetails extends SagaEntry {
  readonly correlationId: string | null;
  readonly history: readonly { readonly at: string; readonly happened: string }[];
}

const iso = (column: string): string => `DATE_FORMAT(${column}, '%Y-%m-%dT%H:%i:%s.%fZ')`;
const ENTRY = `name, id, state, direction, step, attempts, reason, problem, ${iso('due_at')} AS dueAt,
  ${iso('created_at')} AS createdAt, ${iso('updated_at')} AS updatedAt`;

/** Whether the schema has the tables of sagas: only a service that runs them does. */
export async function hasSagas(pool: Pool): Promise<boolean> {
  const [rows] = await pool.query<RowDataPacket[]>(
    "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'sagas'",
  );
  return rows.length > 0;
}

/** The sagas in these states, those that changed last first, each state through sagas_state. */
export async function listSagas(
  pool: Pool,
  { states, limit }: { states: readonly SagaState[]; limit: number },
): Promise<SagaEntry[]> {
  const branch = `(SELECT ${ENTRY} FROM sagas FORCE INDEX (sagas_state) WHERE state = ? ORDER BY updated_at DESC LIMIT ?)`;
  const [rows] = await pool.query<(SagaEntry & RowDataPacket)[]>(
    `${states.map(() => branch).join(' UNION ALL ')} ORDER BY updatedAt DESC LIMIT ?`,
    [...states.flatMap((state) => [state, limit]), limit],
  );
  return rows;
}

/** The sagas of this id, of whichever name. */
export async function findSagas(pool: Pool, id: string): Promise<SagaDetails[]> {
  // By id alone it reads the table, which a person asks for now and then.
  const [entries] = await pool.execute<(SagaEntry & RowDataPacket & { lineage: string })[]>(
    `SELECT ${ENTRY}, lineage FROM sagas WHERE id = ? ORDER BY name`,
    [id],
  );
  return await Promise.all(
    entries.map(async ({ lineage, ...entry }) => {
      const [history] = await pool.execute<(RowDataPacket & { at: string; happened: string })[]>(
        `SELECT ${iso('created_at')} AS at, happened FROM saga_history WHERE name = ? AND id = ? ORDER BY seq`,
        [entry.name, id],
      );
      return { ...entry, correlationId: decodeLineage(lineage).correlationId ?? null, history };
    }),
  );
}

/** Sagas of one name in one state. */
export interface SagaCount {
  readonly name: string;
  readonly state: SagaState;
  readonly count: number;
  /** Since the oldest of them began, by the database's clock; null for those that have ended. */
  readonly oldestSeconds: number | null;
}

// By sagas_state, whose entries hold the name; those that have not ended also say since when, which takes their rows.
const ended = (state: 'completed' | 'compensated'): string =>
  `(SELECT name, state, NULL AS since FROM sagas FORCE INDEX (sagas_state) WHERE state = '${state}' LIMIT ?)`;
const unfinished = (state: 'running' | 'stuck'): string =>
  `(SELECT name, state, created_at AS since FROM sagas FORCE INDEX (sagas_state)
     WHERE state = '${state}' ORDER BY updated_at LIMIT ?)`;
const COUNTS = `SELECT name, state, COUNT(*) AS count,
    TIMESTAMPDIFF(MICROSECOND, MIN(since), UTC_TIMESTAMP(6)) / 1000000 AS oldestSeconds
  FROM (${[unfinished('running'), unfinished('stuck'), ended('completed'), ended('compensated')].join(' UNION ALL ')}) AS found
  GROUP BY name, state ORDER BY name, state`;

/**
 * For a gauge that is read every few seconds: it ends at `countUpTo` sagas of each state, in the unfinished ones with those whose last
 * change is longest ago.
 */
export async function countSagas(
  db: Pick<Transaction, 'query'>,
  countUpTo: number,
): Promise<{ readonly sagas: readonly SagaCount[]; readonly capped: readonly SagaState[] }> {
  const [rows] = await db.query<(RowDataPacket & SagaCount)[]>(COUNTS, Array(4).fill(countUpTo));
  const sagas = rows.map(({ name, state, count, oldestSeconds }) => ({
    name,
    state,
    count,
    oldestSeconds: oldestSeconds === null ? null : Number(oldestSeconds),
  }));
  const totals = Map.groupBy(sagas, ({ state }) => state);
  const isFull = (found: readonly SagaCount[]): boolean =>
    found.reduce((sum, { count }) => sum + count, 0) >= countUpTo;
  return { sagas, capped: [...totals].filter(([, found]) => isFull(found)).map(([state]) => state) };
}

export type ResumeOutcome = 'resumed' | 'running' | 'ended' | 'unknown';

/**
 * Lets a stuck saga try its step again, with all its attempts: it becomes due, and the worker that watches over it sends the command.
 * One that is not stuck is left alone.
 */
export async function resumeSaga(pool: Pool, key: SagaKey): Promise<ResumeOutcome> {
  return await transaction(pool, async (tx) => {
    const found = await lock(tx, key);
    if (found === undefined) return 'unknown';
    if (found.position.state !== 'stuck') return found.position.state === 'running' ? 'running' : 'ended';
    await tx.execute(
      `UPDATE sagas SET state = 'running', attempts = 0, problem = NULL, due_at = UTC_TIMESTAMP(6), updated_at = UTC_TIMESTAMP(6)
        WHERE name = ? AND id = ?`,
      [key.name, key.id],
    );
    await remember(tx, key, 'resumed by an operator');
    return 'resumed';
  });
}
