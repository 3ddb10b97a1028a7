import type { RequestListener } from 'node:http';
import { classOf } from '@oncebox/message';
import { type ForgetSettings, insertRow, keepDeleting, type Pool, type Transaction, transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';

// Payloads over their contract's limit, which consumers fetch from the service that wrote them.

/**
 * A payload whose message is not published, or has been for less than the retention, is still to be
 * fetched. The condition probes the message's id for each old row. Written as NOT EXISTS, it makes
 * MariaDB read the whole outbox first. The message's row may be gone, and was published then.
 */
export const CLAIMED_PAYLOADS = {
  table: 'claimed_payloads',
  key: ['id'],
  age: 'created_at',
  condition: `COALESCE((SELECT IF(o.published_at < ?, 1, 0) FROM outbox AS o FORCE INDEX (outbox_id)
    WHERE o.id = claimed_payloads.id), 1) = 1`,
} as const;

/** By primary key alone; locks nothing that anybody else writes. */
export async function keepPayload(tx: Transaction, id: string, payload: string): Promise<void> {
  await insertRow(tx, 'claimed_payloads', { id, payload });
}

const ID = /\/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/;
/** Milliseconds. As long again may go by for a connection, and both together are less than who asks will wait. */
const READ_TIMEOUT_MS = 4_000;

/**
 * The payload, and whether what was written at that time may have been deleted. One statement, as both go in one transaction. Two probes of
 * primary keys, without locks.
 */
const READ = `SELECT (SELECT payload FROM claimed_payloads WHERE id = ?) AS payload,
    (SELECT forgotten_before > TIMESTAMPADD(SECOND, ?, TIMESTAMP('1970-01-01')) FROM retention
      WHERE name = 'claimed_payloads') AS forgotten`;

/** Seconds since 1970 at which a UUIDv7 was made. */
const madeAt = (id: string): number => Math.floor(Number.parseInt(id.replace('-', '').slice(0, 12), 16) / 1_000);

/**
 * Answers `GET …/<message id>` with the payload that was kept for a message of this schema, for a server of your own:
 * `createServer(servePayloads(pool, logger))`, or `app.use('/payloads', servePayloads(pool, logger))`. It asks nobody who they are: put it where only your
 * consumers can reach it. 410 for a message from before the time that payloads are kept for, which none can cure; 404 for any other that has
 * none here, as whoever asks may have the wrong address; 503 and a line in the log when the database does not answer.
 */
export function servePayloads(pool: Pool, logger: Pick<ForgetSettings['logger'], 'warn'>): RequestListener {
  return async (request, response) => {
    const answer = (status: number, body = '', headers: Record<string, string> = {}) =>
      response
        .writeHead(status, { 'cache-control': 'no-store', ...headers })
        .end(request.method === 'HEAD' ? '' : body);
    if (request.method !== 'GET' && request.method !== 'HEAD') return answer(405, '', { allow: 'GET, HEAD' });
    const id = ID.exec(request.url?.split('?', 1)[0] ?? '')?.[1];
    if (id === undefined) return answer(404);
    try {
      // In a transaction for its deadline: on a connection that has died in silence a statement would wait for ever.
      const row = await transaction(
        pool,
        async (tx) => {
          const [rows] = await tx.execute<(RowDataPacket & { payload: string | null; forgotten: number | null })[]>(
            READ,
            [id, madeAt(id)],
          );
          return rows[0];
        },
        { attempts: 1, timeoutMs: READ_TIMEOUT_MS },
      );
      if (typeof row?.payload === 'string') return answer(200, row.payload, { 'content-type': 'application/json' });
      return answer(row?.forgotten === 1 ? 410 : 404);
    } catch (error) {
      logger.warn({ error: error instanceof Error ? classOf(error) : 'Error' }, `Could not read the payload of ${id}`);
      return answer(503, '', { 'retry-after': '1' });
    }
  };
}

/**
 * Deletes the payloads that were written more than `keepHours` ago, now and from time to time, but
 * for those of messages that are not published yet, or have been for less than `keepHours`. A
 * message that is handled later than that, a replayed dead letter for one, is dead. Never rejects:
 * a pass that failed is logged.
 */
export const forgetPayloads = (pool: Pool, settings: ForgetSettings): Promise<void> =>
  keepDeleting(pool, CLAIMED_PAYLOADS, settings);
