import { setTimeout as delay } from 'node:timers/promises';
import { deleteExpired, type Pool } from '@oncebox/mysql';
import type { Logger } from '@oncebox/service';
import { IDEMPOTENCY_KEYS } from './store.ts';

/** Milliseconds between two passes, on average. */
const PERIOD_MS = 10 * 60_000;

interface ForgetSettings {
  readonly keepHours: number;
  readonly logger: Logger;
  /** Ends it, after the batch under way. */
  readonly signal: AbortSignal;
}

/** Deletes the keys that are older than `keepHours`, now and from time to time. Never rejects: a pass that failed is logged. */
export async function forgetKeys(pool: Pool, { keepHours, logger, signal }: ForgetSettings): Promise<void> {
  while (!signal.aborted) {
    try {
      const deleted = await deleteExpired(pool, IDEMPOTENCY_KEYS, keepHours, signal);
      if (deleted > 0) logger.info(`Forgot ${deleted} idempotency keys that were older than ${keepHours} h`);
    } catch (err) {
      logger.warn({ err }, 'Could not forget old idempotency keys; they stay until a later pass');
    }
    // By chance, so that processes that started together do not clean together. It rejects when the signal ends it.
    await delay(PERIOD_MS * (0.5 + Math.random()), undefined, { signal }).catch(() => undefined);
  }
}
