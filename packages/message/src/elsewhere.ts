/** Milliseconds in the only retry queue of a consumer without delays. */
const ONLY_DELAY_MS = 30_000;

/**
 * The delays of a consumer's retry queues. One without delays has a queue all the same, for what
 * waits and is no failed attempt.
 */
export const queuedDelays = (retryDelaysMs: readonly number[]): readonly number[] =>
  retryDelaysMs.length === 0 ? [ONLY_DELAY_MS] : retryDelaysMs;

/**
 * How long a message waits that another worker of its consumer handles and this one does not: the
 * longest of the consumer's delays in which it has not waited longer than it has until now. So it
 * comes soon while a release is rolled out, and costs little when the workers differ for hours.
 *
 * @returns undefined for a consumer without delays: it has no queue to wait in.
 */
export function delayElsewhere(retryDelaysMs: readonly number[], waitedMs: number): number | undefined {
  if (retryDelaysMs.length === 0) return undefined;
  const reached = retryDelaysMs.filter((delay) => delay <= waitedMs);
  return reached.length === 0 ? Math.min(...retryDelaysMs) : Math.max(...reached);
}
