import type { Lineage } from '@oncebox/message';
import { isDuplicateKey, type Transaction, withOwnOptions } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import type { Next, Position } from './machine.ts';

export interface SagaKey {
  readonly name: string;
  readonly id: string;
}

export interface StoredSaga extends SagaKey {
  readonly position: Position;
  /** JSON text. */
  readonly data: string;
  /** JSON text, as outbox.headers has it. */
  readonly lineage: string;
}

type Row = RowDataPacket & Position & SagaKey & { readonly data: string; readonly lineage: string };

const COLUMNS = 'name, id, data, lineage, state, direction, step, attempts, reason, problem';

const stored = ({ name, id, data, lineage, state, direction, step, attempts, reason, problem }: Row): StoredSaga => ({
  name,
  id,
  data,
  lineage,
  position: { state, direction, step, attempts, reason, problem },
});

/** @returns false when there is a saga of this name and id already. The insert itself finds out, as a look before it could be outrun. */
export async function insert(
  tx: Transaction,
  { name, id }: SagaKey,
  data: string,
  lineage: Lineage,
  { position, command }: Next,
): Promise<boolean> {
  const { state, direction, step, attempts } = position;
  try {
    await withOwnOptions(tx).execute(
      `INSERT INTO sagas (name, id, data, lineage, state, direction, step, attempts, due_at, ended_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ${DUE}, IF(? = 'completed', UTC_TIMESTAMP(6), NULL))`,
      [name, id, data, JSON.stringify(lineage), state, direction, step, attempts, wait(command), state],
    );
    return true;
  } catch (error) {
    if (isDuplicateKey(error)) return false;
    throw error;
  }
}

/** Locks the saga's row, so that an answer, a second one and a time-out take their turns. */
export async function lock(tx: Transaction, { name, id }: SagaKey): Promise<StoredSaga | undefined> {
  const [[row]] = await withOwnOptions(tx).execute<Row[]>(
    `SELECT ${COLUMNS} FROM sagas WHERE name = ? AND id = ? FOR UPDATE`,
    [name, id],
  );
  return row && stored(row);
}

/**
 * Locks one saga of these names that has waited too long. It skips locked ones: another worker is at them, or an answer is just
 * coming in. Through sagas_due, which by due_at alone leaves out all that are stuck or have ended.
 */
export async function lockDue(tx: Transaction, names: readonly string[]): Promise<StoredSaga | undefined> {
  const [[row]] = await withOwnOptions(tx).query<Row[]>(
    `SELECT ${COLUMNS} FROM sagas FORCE INDEX (sagas_due)
      WHERE due_at <= UTC_TIMESTAMP(6) AND name IN (?) ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED`,
    [names],
  );
  return row && stored(row);
}

/** By primary key; the caller holds the row's lock. */
export async function update(tx: Transaction, { name, id }: SagaKey, { position, command }: Next): Promise<void> {
  const { state, direction, step, attempts, reason, problem } = position;
  await withOwnOptions(tx).execute(
    `UPDATE sagas SET state = ?, direction = ?, step = ?, attempts = ?, reason = ?, problem = ?, due_at = ${DUE},
            updated_at = UTC_TIMESTAMP(6), ended_at = IF(? IN ('completed', 'compensated'), UTC_TIMESTAMP(6), NULL)
      WHERE name = ? AND id = ?`,
    [state, direction, step, attempts, reason, problem, wait(command), state, name, id],
  );
}

export async function remember(tx: Transaction, { name, id }: SagaKey, happened: string): Promise<void> {
  await withOwnOptions(tx).execute('INSERT INTO saga_history (name, id, happened) VALUES (?, ?, LEFT(?, 500))', [
    name,
    id,
    happened,
  ]);
}

/** By the database's clock, as the poller's look is. */
const DUE = 'TIMESTAMPADD(MICROSECOND, ?, UTC_TIMESTAMP(6))';
/** NULL in gives NULL out: what has nothing to wait for is never due. */
const wait = (command: Next['command']): number | null => (command === undefined ? null : command.timeoutMs * 1_000);
