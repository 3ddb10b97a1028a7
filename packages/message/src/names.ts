/** The topic exchange of every event. Relay and worker both declare it, so that either may start first. */
export const EVENTS_EXCHANGE = 'oncebox.events';

/** The topic exchange of every command and of the answers to them: each key has one owner. */
export const COMMANDS_EXCHANGE = 'oncebox.commands';

/** The stream that keeps what was published, where a relay is told to keep it. */
export const LOG = 'oncebox.log';

/** The header that marks a message which was sent again from the log: it may be years old, and is not news. */
export const REPLAY_HEADER = 'oncebox-replay';

/** `250` → `250ms`, `5000` → `5s`, `120000` → `2m`: what a retry queue is called by. */
function shortDelay(milliseconds: number): string {
  if (milliseconds % 60_000 === 0) return `${milliseconds / 60_000}m`;
  if (milliseconds % 1_000 === 0) return `${milliseconds / 1_000}s`;
  return `${milliseconds}ms`;
}

/** Where a failed message waits `milliseconds` before it goes back to the consumer's own queue. */
export const retryQueue = (consumer: string, milliseconds: number): string =>
  `${consumer}.retry.${shortDelay(milliseconds)}`;

/** How many partitions the ordering keys are spread over: the range of the outbox column `partition_id`, and of the header. */
export const PARTITIONS = 16;

/** The header that carries a message's partition, as text. */
export const PARTITION_HEADER = 'partition';

/** An ordered consumer has as many queues, each with its share of the partitions and one worker at a time. */
const ORDERED_QUEUES = 4;

/** The queues of an ordered consumer; partition p belongs to the one at p % their number. */
export const orderedQueues = (consumer: string): string[] =>
  Array.from({ length: ORDERED_QUEUES }, (_, index) => `${consumer}.${index}`);

/** The exchanges of an ordered consumer: one divides its messages by their partition, the other has those without one. */
export const orderedExchanges = (consumer: string) => ({ divided: consumer, rest: `${consumer}.rest` }) as const;

/** The exchange that says whose the consumer's name is. Nothing is published to it. */
export const ownerExchange = (consumer: string): string => `${consumer}.owner`;

/** Where messages go that the consumer has given up on. */
export const deadQueue = (consumer: string): string => `${consumer}.dead`;

/** Where dead letters wait that the consumer's store does not take, each by itself, so that they are in nobody's way. */
export const setAsideQueue = (consumer: string): string => `${consumer}.set-aside`;
