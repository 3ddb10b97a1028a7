export { type Inbox, PROBLEM_CODES } from '@oncebox/message';
export { type Consumer, type ConsumerDefinition, defineConsumer, type WhenDead } from './consumer.ts';
export {
  type EraseOutcome,
  eraseDeadLetters,
  eraseHeld,
  findHeldOf,
  findLettersOf,
  type HeldOfKey,
  type LetterOfKey,
} from './erase.ts';
export { InboxError, type InboxErrorCode, NonRetryableError, PayloadExpiredError } from './errors.ts';
export { type Handling, type Incoming, on, onBatch } from './handling.ts';
export { createInbox } from './inbox.ts';
export {
  type ConsumerActivity,
  countDeadLetters,
  type DeadLetterCounts,
  inboxForgottenBefore,
  type Registration,
  readActivity,
  readHandled,
  readRegistrations,
} from './inspect.ts';
export {
  forgetBinding,
  forgetConsumer,
  type KnownBinding,
  type KnownConsumer,
  readConsumer,
} from './names.ts';
export { type ConsumerProblem, readProblems, readWorkers } from './problems.ts';
export {
  type DeadLetter,
  type DeadLetterFilter,
  type DeadLetterState,
  type DiscardOutcome,
  deadLettersOf,
  discardDeadLetters,
  listDeadLetters,
  type ReplayOutcome,
  readSent,
  requestReplay,
  type Sent,
} from './replay.ts';
export {
  DEAD_LETTERS,
  forgetDeadLetters,
  forgetProcessed,
  oldestHandledLetterSeconds,
  PROCESSED_MESSAGES,
} from './retention.ts';
export { type Handled, readHeld, scanHandled } from './scan.ts';
export type { InboxSignal, InboxSignals, WorkedSignal } from './signals.ts';
