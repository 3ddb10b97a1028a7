import { add } from './add.ts';

/** The write side: `outbox.add(tx, message)`. */
export const outbox = { add } as const;
export type { RelayLogger } from './drain.ts';
export type { PassResult } from './pass.ts';
export type { Outcome, Publisher } from './publisher.ts';
export { createRelay, type Relay, type RelayOptions } from './relay.ts';
