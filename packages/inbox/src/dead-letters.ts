import type { DeadLetter, DeadLetters, SendAgain } from '@oncebox/message';
import { asBytes, isDuplicateKey, type Pool, type Transaction, transaction, withOwnOptions } from '@oncebox/mysql';
import type { ResultSetHeader, RowDataPacket } from 'mysql2/promise';

/** Sent while their rows are locked, one after another; few, so that one transaction does not last. */
const BATCH = 20;

interface Row extends RowDataPacket {
  readonly routing_key: string;
  readonly properties: string;
  readonly body: Buffer;
}

/** The dead letters of one consumer, in the table of that name. */
export function deadLetters(pool: Pool, consumer: string): DeadLetters {
  return {
    async keep(letter) {
      try {
        // In a transaction for its deadline: on a connection that has died in silence a statement would wait for ever.
        await transaction(pool, (tx) => insertDeadLetter(tx, consumer, letter), { timeoutMs: 20_000 });
      } catch (error) {
        // The only key that a copy can meet is its own: the worker before died between this insert and its ack.
        if (!isDuplicateKey(error)) throw error;
      }
    },

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

/** @returns its id. */
export async function insertDeadLetter(tx: Transaction, consumer: string, letter: DeadLetter): Promise<string> {
  const { messageId, type, version, routingKey, properties, body, reason, errorClass, attempts } = letter;
  const { firstFailedAt, lastFailedAt, occurredAt, copyHash } = letter;
  const id = messageId === undefined ? null : asBytes(messageId);
  // A prepared statement, which sends the body as it is; a query would send it in hexadecimal, at twice its size.
  const [{ insertId }] = await withOwnOptions(tx).execute<ResultSetHeader>(
    `INSERT INTO dead_letters (consumer, message_id, type, version, routing_key, properties, body, reason, error_class,
                               attempts, first_failed_at, last_failed_at, occurred_at, copy_hash)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    [
      consumer,
      id !== null && id.length > 255 ? null : id, // the properties have it whole
      type ?? null,
      version ?? null,
      routingKey,
      properties,
      body,
      reason,
      errorClass ?? null,
      attempts,
      firstFailedAt ?? null,
      lastFailedAt ?? null,
      occurredAt ?? null,
      copyHash,
    ],
  );
  return String(insertId);
}

/** Reads each body when its turn comes: together they may be large. */
async function sendOne(tx: Transaction, id: string, send: SendAgain): Promise<'replayed' | 'dead'> {
  const [rows] = await withOwnOptions(tx).execute<Row[]>(
    'SELECT routing_key, properties, body FROM dead_letters WHERE id = ?',
    [id],
  );
  const [row] = rows;
  if (row === undefined) throw new Error(`The dead letter ${id} is gone, although its row is locked`);
  const outcome = await send({ routingKey: row.routing_key, properties: row.properties, body: row.body });
  return outcome === 'sent' ? 'replayed' : 'dead';
}
