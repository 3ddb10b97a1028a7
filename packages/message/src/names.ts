/** The topic exchange of every event. Relay and worker both declare it, so that either may start first. */
export const EVENTS_EXCHANGE = 'oncebox.events';

/** `250` → `250ms`, `5000` → `5s`, `120000` → `2m`: what a retry queue is called by. */
function shortDelay(milliseconds: number): string {
  if (milliseconds % 60_000 === 0) return `${milliseconds / 60_000}m`;
  if (milliseconds % 1_000 === 0) return `${milliseconds / 1_000}s`;
  return `${milliseconds}ms`;
}

/** Where a failed message waits `milliseconds` before it goes back to the consumer's own queue. */
export const retryQueue = (consumer: string, milliseconds: number): string =>
  `${consumer}.retry.${shortDelay(milliseconds)}`;

/** Where messages go that the consumer has given up on. */
export const deadQueue = (consumer: string): string => `${consumer}.dead`;
