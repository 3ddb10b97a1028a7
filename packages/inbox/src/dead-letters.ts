import { type DeadLetters, isStub, type SendAgain } from '@oncebox/message';
import { type Pool, type Transaction, transaction, withOwnOptions } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { keepLetter } from './keeping.ts';

/** Sent while their rows are locked, one after another; few, so that one transaction does not last. */
const BATCH = 20;

interface Row extends RowDataPacket {
  readonly routing_key: string;
  readonly properties: string;
  readonly body: Buffer;
  readonly reason: string;
}

/** The dead letters of one consumer, in the table of that name. @param isAway asks the database. */
export function deadLetters(pool: Pool, consumer: string, isAway: () => Promise<boolean>): DeadLetters {
  return {
    keep: (letter) => keepLetter(pool, consumer, letter, isAway),

    async replay(send) {
      let failure: unknown;
      const found = await transaction(
        pool,
        async (tx) => {
          // Asked every second, and nearly always there is nothing: the index says so, and nothing is locked.
          // The lock is the claim: a worker that dies gives its rows back at once, and the others pass them by. The index is forced so that
          // no other row is locked on the way, which an operator may be editing.
          const [rows] = await withOwnOptions(tx).execute<(RowDataPacket & { id: string })[]>(
            `SELECT CAST(d.id AS CHAR) AS id FROM dead_letters AS d FORCE INDEX (dead_letters_state)
              WHERE d.state = 'replay' AND d.consumer = ? ORDER BY d.id LIMIT ${BATCH} FOR UPDATE SKIP LOCKED`,
            [consumer],
          );
          for (const { id } of rows) {
            const state = await sendOne(tx, id, send).catch((error: unknown) => {
              failure = error;
            });
            if (state === undefined) break;
            await withOwnOptions(tx).execute(
              'UPDATE dead_letters SET state = ?, updated_at = UTC_TIMESTAMP(6) WHERE id = ?',
              [state, id],
            );
          }
          return rows.length;
        },
        { attempts: 1 },
      );
      // Only now: thrown inside, it would undo the marks of those that were sent.
      if (failure !== undefined) throw failure;
      return found === BATCH;
    },
  };
}

/** Reads each body when its turn comes: together they may be large. */
async function sendOne(tx: Transaction, id: string, send: SendAgain): Promise<'replayed' | 'dead'> {
  const [rows] = await withOwnOptions(tx).execute<Row[]>(
    'SELECT routing_key, properties, body, reason FROM dead_letters WHERE id = ?',
    [id],
  );
  const [row] = rows;
  if (row === undefined) throw new Error(`The dead letter ${id} is gone, although its row is locked`);
  if (isStub(row)) return 'dead'; // it has nothing to send
  const outcome = await send({ routingKey: row.routing_key, properties: row.properties, body: row.body });
  return outcome === 'sent' ? 'replayed' : 'dead';
}
