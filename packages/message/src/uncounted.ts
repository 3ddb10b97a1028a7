/**
 * Why an attempt at a message does not count as failed. `elsewhere`: this worker does not handle
 * the message, and another worker of its consumer does. `refused`: the server says of itself that
 * it cannot go on, for this message at least. `unconnected`: there was no connection, and nothing
 * of the message has been tried.
 */
export type Uncounted = 'elsewhere' | 'refused' | 'unconnected';

/** Milliseconds in the only retry queue of a consumer without delays. */
const ONLY_DELAY_MS = 30_000;
/** A server that is full is seldom mended sooner than that, and seldom much later. */
const REFUSED_MOST_MS = 60_000;

/**
 * The delays of a consumer's retry queues. A consumer without delays has a queue all the same, for
 * what waits and is no failed attempt.
 */
export const queuedDelays = (retryDelaysMs: readonly number[]): readonly number[] =>
  retryDelaysMs.length === 0 ? [ONLY_DELAY_MS] : retryDelaysMs;

/**
 * How long a message waits after an attempt that does not count. For a connection, the shortest of
 * the consumer's delays. For a server, the longest one up to a minute. For another worker, the
 * longest delay that the message has waited already: so it comes soon while a release is rolled
 * out, and costs little when the workers differ for hours.
 *
 * @param waitedMs since the first attempt.
 */
export function delayUncounted(uncounted: Uncounted, retryDelaysMs: readonly number[], waitedMs: number): number {
  const delays = queuedDelays(retryDelaysMs);
  const most = { elsewhere: waitedMs, refused: REFUSED_MOST_MS, unconnected: 0 }[uncounted];
  const within = delays.filter((delay) => delay <= most);
  return within.length === 0 ? Math.min(...delays) : Math.max(...within);
}
