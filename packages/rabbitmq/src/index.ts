export { type Broker, connectBroker } from './broker.ts';
export type { Outcome } from './confirms.ts';
export { type Consumer, type ConsumerOptions, startConsumer } from './consumer.ts';
export { BrokerError, type BrokerErrorCode } from './errors.ts';
export { type History, type HistoryOptions, openHistory } from './history.ts';
export type { Kept } from './log-reader.ts';
export type { Logger } from './logger.ts';
export { type NamedConsumer, type Names, openNames, type QueueDepth } from './names.ts';
export { createPublisher, type Publisher, type PublisherOptions } from './publisher.ts';
export {
  type Answered,
  createRequester,
  type ReplyCounts,
  type Requester,
  type RequesterOptions,
  type RequestOptions,
} from './requester.ts';
export { type Responder, type ResponderOptions, startResponder } from './responder.ts';
export { type BringBackOptions, bringBack, countSetAside } from './set-aside.ts';
export type { ConsumerSignals, SettledSignal } from './signals.ts';
export type { ConnectionState } from './supervisor.ts';
export type { LogRetention } from './topology.ts';
