import { setTimeout as sleep } from 'node:timers/promises';

/** @returns false when the signal came first. */
export const pause = (ms: number, signal: AbortSignal): Promise<boolean> =>
  sleep(ms, true, { signal }).catch(() => false);
