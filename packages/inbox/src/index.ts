export {
  type Consumer,
  type ConsumerDefinition,
  defineConsumer,
  type Handling,
  type Incoming,
  on,
} from './consumer.ts';
export { InboxError, type InboxErrorCode, NonRetryableError } from './errors.ts';
export { createInbox, type Inbox } from './inbox.ts';
