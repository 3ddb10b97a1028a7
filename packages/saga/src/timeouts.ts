import { setTimeout as delay } from 'node:timers/promises';
import { classOf } from '@oncebox/message';
import { isContention, isUnavailable, type Pool, type Transaction, transaction } from '@oncebox/mysql';
import type { Saga } from './definition.ts';
import { type Position, stuck, timedOut } from './machine.ts';
import { instanceOf, lineageOf, moveOn } from './process.ts';
import { lock, lockDue, type SagaKey, type StoredSaga } from './store.ts';

export interface TimeoutSettings {
  /** Ends it, after the saga under way. */
  readonly signal: AbortSignal;
  readonly logger: {
    warn(fields: object, message: string): void;
    error(fields: object, message: string): void;
  };
  /** Milliseconds between two looks while nothing is due. Default 500. */
  readonly pollMs?: number;
}

const POLL_MS = 500;
const LONGEST_PAUSE_MS = 30_000;

/**
 * Moves on the sagas whose answers do not come, as long as the signal lets it. The time-outs are rows and not timers: they pass
 * while no process runs, and any number of processes may watch over them. Never rejects: while the database is away it waits, and
 * logs it.
 */
export async function watchTimeouts(
  pool: Pool,
  sagas: readonly Saga[],
  { signal, logger, pollMs = POLL_MS }: TimeoutSettings,
): Promise<void> {
  for (let failures = 0; !signal.aborted; ) {
    try {
      while (!signal.aborted && (await expireOne(pool, sagas, logger)));
      failures = 0;
    } catch (err) {
      failures += 1;
      logger.warn({ err }, 'Could not look for sagas that wait in vain; trying again');
    }
    // By chance, so that processes that started together do not look together. It rejects when the signal ends it.
    const pause = Math.min(pollMs * 2 ** failures, LONGEST_PAUSE_MS) * (0.5 + Math.random());
    await delay(pause, undefined, { signal }).catch(() => undefined);
  }
}

/**
 * One saga a transaction, so that one that fails holds up no other.
 *
 * @returns whether there was one.
 */
async function expireOne(pool: Pool, sagas: readonly Saga[], logger: TimeoutSettings['logger']): Promise<boolean> {
  let due: StoredSaga | undefined;
  const expire = async (tx: Transaction): Promise<Position | undefined> => {
    due = await lockDue(
      tx,
      sagas.map(({ name }) => name),
    );
    const saga = sagas.find(({ name }) => name === due?.name);
    if (due === undefined || saga === undefined) return undefined;
    const next = timedOut(instanceOf(saga, due), due.position);
    await moveOn(tx, due, next, lineageOf(due));
    return next.position;
  };
  try {
    const position = await transaction(pool, expire);
    if (position?.state === 'stuck') {
      logger.error({ ...namesOf(due), problem: position.problem }, 'A saga is stuck');
    }
  } catch (error) {
    if (due === undefined || isContention(error) || isUnavailable(error)) throw error;
    const problem = `its definition failed: ${classOf(error)}`;
    await getStuck(pool, due, problem);
    logger.error({ ...namesOf(due), problem }, 'A saga is stuck');
  }
  return due !== undefined;
}

const namesOf = (saga: StoredSaga | undefined): object =>
  saga === undefined ? {} : { saga: saga.name, sagaId: saga.id, correlationId: lineageOf(saga).correlationId };

/** For a definition that throws, and would again at every look. */
async function getStuck(pool: Pool, key: SagaKey, problem: string): Promise<void> {
  await transaction(pool, async (tx) => {
    const found = await lock(tx, key);
    if (found?.position.state !== 'running') return;
    await moveOn(tx, found, { position: stuck(found.position, problem), happened: 'timed out' }, {});
  });
}
