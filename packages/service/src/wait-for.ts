import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import { reasonCode } from './errors.ts';

export interface WaitSettings {
  readonly logger: Logger;
  /** Ends the wait: it then rejects with the signal's reason. */
  readonly signal: AbortSignal;
}

/** Milliseconds before the second attempt; each next pause is twice as long, up to the longest. */
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 5_000;

/**
 * Attempts until one succeeds, however long the server stays away, and returns what that one gave. Each failure is a line
 * that says which server is missing and why: `Waiting for database 127.0.0.1:13306: ECONNREFUSED`.
 *
 * @param name The server, as people know it, without credentials.
 */
export async function waitFor<T>(
  name: string,
  attempt: () => Promise<T>,
  { logger, signal }: WaitSettings,
): Promise<T> {
  for (let failures = 0; ; failures++) {
    signal.throwIfAborted();
    try {
      const result = await attempt();
      if (failures > 0) logger.info(`Found ${name}`);
      return result;
    } catch (error) {
      signal.throwIfAborted();
      const reason = reasonCode(error);
      logger.warn(reason === 'failed' ? { err: error } : {}, `Waiting for ${name}: ${reason}`);
    }
    const pause = Math.min(FIRST_PAUSE_MS * 2 ** failures, LONGEST_PAUSE_MS);
    // Half of it by chance, so that the processes that lost the server together do not come back together.
    await delay(pause / 2 + (Math.random() * pause) / 2, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}
