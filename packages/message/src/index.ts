export { type Contract, defineMessage, type Lineage, type Message } from './contract.ts';
export { MessageError, type MessageErrorCode } from './errors.ts';
export type { DeadLetter, DeadLetters, DeadMessage, Inbox, SendAgain } from './inbox.ts';
export { deadQueue, EVENTS_EXCHANGE, retryQueue } from './names.ts';
export { parsePayload } from './payload.ts';
export { decodeLineage, type NewOutboxRow, toOutboxRow } from './row.ts';
export { type Delivery, fromWire, type OutgoingMessage, type Received, toWire, type Verdict } from './wire.ts';
