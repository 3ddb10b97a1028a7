import { setTimeout as delay } from 'node:timers/promises';

const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 10_000;

/** Full jitter: after a broker's restart all its clients come back, and must not come back at the same moments. */
export const pauseMs = (failures: number): number =>
  Math.random() * Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(failures, 16));

/**
 * Keeps something alive: runs `live` again, after a pause that grows, whenever it has resolved or rejected.
 *
 * The pause shrinks back only after a life longer than the longest pause. If beginning were enough, a broker that accepts and
 * then closes would be called in a hot loop.
 *
 * @returns when `stop` is aborted and `live` has ended.
 */
export async function persist(
  live: () => Promise<void>,
  stop: AbortSignal,
  onFailure: (error: unknown) => void,
): Promise<void> {
  for (let failures = 0; !stop.aborted; failures++) {
    const began = performance.now();
    try {
      await live();
    } catch (error) {
      if (stop.aborted) return;
      onFailure(error);
    }
    if (performance.now() - began > LONGEST_PAUSE_MS) failures = 0;
    await delay(pauseMs(failures), undefined, { signal: stop }).catch(() => undefined); // rejects only because of `stop`
  }
}
