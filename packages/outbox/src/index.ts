import { add } from './add.ts';

/** The write side: `outbox.add(tx, message)`. */
export const outbox = { add } as const;
export { type Backlog, type OutboxProblem, readBacklog, readOutboxProblems } from './backlog.ts';
export { CLAIMED_PAYLOADS, forgetPayloads, servePayloads } from './claimed.ts';
export type { RelayLogger } from './drain.ts';
export { erasePayloads, eraseRows, findByKey, findPayloads } from './erase.ts';
export {
  findInOutbox,
  knownToOutbox,
  listOutbox,
  momentBefore,
  type OutboxDetails,
  type OutboxEntry,
  type OutboxFilter,
  type OutboxState,
  outboxForgottenBefore,
  scanOutbox,
} from './inspect.ts';
export type { PassResult } from './pass.ts';
export type { Outcome, Publisher } from './publisher.ts';
export { type OutboxReading, readOutbox } from './reading.ts';
export { createRelay, type Relay, type RelayOptions } from './relay.ts';
export { type ReleaseOutcome, type RetryOutcome, release, retryNow } from './release.ts';
export { republish } from './republish.ts';
export type { PassedSignal, PassSignal, RelaySignals } from './signals.ts';
