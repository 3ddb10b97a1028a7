export { answersClaim, type Claim, claimCheck, claimFor, claimIn, mayBeClaimed } from './claim.ts';
export {
  type CommandDefinition,
  type CommandOutcome,
  defineCommand,
  type ReplyPayload,
  type ReplyTo,
  repliesTo,
  reply,
  replyTo,
} from './command.ts';
export {
  type Contract,
  causedBy,
  defineMessage,
  type Lineage,
  type Message,
  nextVersion,
  versionsOf,
} from './contract.ts';
export { MessageError, type MessageErrorCode } from './errors.ts';
export {
  classOf,
  failureOf,
  fieldOf,
  isNonRetryable,
  NON_RETRYABLE,
  nameOf,
  QUOTES_NO_DATA,
  reasonOf,
  ThrownError,
} from './failure.ts';
export {
  type Binding,
  type DeadLetter,
  type DeadLetters,
  type DeadMessage,
  type HeldOutcome,
  type Inbox,
  PROBLEM_CODES,
  type Presence,
  type Problem,
  type ProblemCode,
  type SendAgain,
} from './inbox.ts';
export { fitsShortString, isDatable, isExact, isVersion, MAX_BODY_BYTES, utf8TextOf } from './limits.ts';
export {
  COMMANDS_EXCHANGE,
  deadQueue,
  EVENTS_EXCHANGE,
  LOG,
  orderedExchanges,
  orderedQueues,
  ownerExchange,
  PARTITION_HEADER,
  PARTITIONS,
  REPLAY_HEADER,
  retryQueue,
  setAsideQueue,
} from './names.ts';
export { parsePayload } from './payload.ts';
export { defineRequest, type RequestContract, type RequestDefinition } from './request.ts';
export { decodeLineage, type NewOutboxRow, toOutboxRow } from './row.ts';
export { isStub, STUB_REASON, stubOf } from './set-aside.ts';
export {
  type HandledMessage,
  inActiveTrace,
  inHandleSpan,
  inPublishSpan,
  isTracing,
  recordFailure,
  recordVerdict,
} from './tracing.ts';
export { delayUncounted, queuedDelays, type Uncounted } from './uncounted.ts';
export { type Delivery, fromWire, type OutgoingMessage, type Received, toWire, type Verdict } from './wire.ts';
