import { createHash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { createPool, type Pool, parseDatabaseUrl, type Transaction } from '@oncebox/mysql';
import type { PoolConnection, RowDataPacket } from 'mysql2/promise';
import type { Reader, Sample } from './gauges.ts';
import type { Metrics } from './metrics.ts';

export interface ReadingOptions {
  readonly databaseUrl: string;
  /** What is read of the schema: one process at a time reads the same of the same schema. */
  readonly of: string;
  /** Plain reads whose cost does not grow with what is in the tables. */
  readonly read: (db: Pick<Transaction, 'query'>, schema: string) => Promise<readonly Sample[]>;
  readonly logger: { warn(fields: object, message: string): void };
  /** Milliseconds between two readings. Default 5,000. */
  readonly everyMs?: number;
}

export interface Reading {
  stop(): Promise<void>;
}

/** Seconds after which the server frees the turn of a process that is frozen or unreachable. */
const TURN_SECONDS = 30;
/** Milliseconds for one reading; a session that does not answer is destroyed. */
const TIMEOUT_MS = 10_000;

/**
 * Reads gauges from a database, in the background and not at each scrape: however many Prometheus servers there are, and however slow the
 * database is, its tables are read at this pace.
 *
 * One process at a time does, by a lock of the server's (GET_LOCK) that belongs to the one session of the reading: it is free again when
 * that session ends. A row lock would do as well, but it wants a transaction that stays open, and on MariaDB purge waits for that. The
 * others try at each turn, and show nothing. Whoever cannot read any more shows nothing either, but for the age of its last reading, which
 * grows: a number from before an outage would be believed.
 */
export function keepReading(
  { samples }: Metrics,
  { databaseUrl, of, read, logger, everyMs = 5_000 }: ReadingOptions,
): Reading {
  const { schema } = parseDatabaseUrl(databaseUrl);
  const pool = createPool(databaseUrl, { connections: 1, session: { wait_timeout: TURN_SECONDS } });
  const stopping = new AbortController();
  let failing = false;
  // An outage that is there from the beginning has an age too.
  let askedAt = performance.now();
  const reader: Reader = { schema, of, readAt: askedAt };
  samples.replace(reader, []);

  async function turn(): Promise<void> {
    try {
      const found = await onSession(pool, stopping.signal, async (session) =>
        (await isOurTurn(session, schema, of)) ? await read(session, schema) : undefined,
      );
      askedAt = performance.now();
      reader.readAt = found === undefined ? undefined : askedAt;
      samples.replace(reader, found ?? []);
      failing = false;
    } catch (err) {
      if (stopping.signal.aborted) return;
      reader.readAt = askedAt;
      samples.replace(reader, []);
      if (!failing) logger.warn({ schema, err }, `Could not read the gauges of the ${of}; trying again`);
      failing = true;
    }
  }

  const running = (async () => {
    while (!stopping.signal.aborted) {
      await turn();
      // By chance, so that processes that started together do not ask together. It rejects when the signal ends it.
      await delay(everyMs * (0.9 + Math.random() / 5), undefined, { signal: stopping.signal }).catch(() => undefined);
    }
  })();

  return {
    async stop() {
      stopping.abort();
      await running;
      await pool.end();
    },
  };
}

/** The lock is the session's, so one look tells whether it is still ours, and takes it if nobody's. Server-wide: hence the schema. */
async function isOurTurn(session: PoolConnection, schema: string, of: string): Promise<boolean> {
  // A lock's name has 64 characters at most, and a schema's alone may have as many.
  const lock = `oncebox ${createHash('sha256').update(`${of} ${schema}`).digest('hex').slice(0, 40)}`;
  const [[row]] = await session.query<(RowDataPacket & { ours: number | null })[]>(
    'SELECT IF(IS_USED_LOCK(?) = CONNECTION_ID(), 1, GET_LOCK(?, 0)) AS ours',
    [lock, lock],
  );
  return row?.ours === 1;
}

/** The pool has one connection, which keeps its session until it fails, is too slow, or the process stops, which must not wait for it. */
async function onSession<T>(
  pool: Pool,
  stopping: AbortSignal,
  work: (session: PoolConnection) => Promise<T>,
): Promise<T> {
  const late = Promise.withResolvers<never>();
  const end = (): void =>
    late.reject(Object.assign(new Error(`No reading within ${TIMEOUT_MS} ms`), { code: 'ETIMEDOUT' }));
  const timer = setTimeout(end, TIMEOUT_MS);
  stopping.addEventListener('abort', end, { once: true });
  const connecting = pool.getConnection();
  try {
    const session = await Promise.race([connecting, late.promise]);
    const result = await Promise.race([work(session), late.promise]);
    session.release();
    return result;
  } catch (error) {
    // Also when it comes only after the time is up. One that never comes has been told to the log.
    connecting.then(
      (session) => session.destroy(),
      () => undefined,
    );
    throw error;
  } finally {
    clearTimeout(timer);
    stopping.removeEventListener('abort', end);
  }
}
