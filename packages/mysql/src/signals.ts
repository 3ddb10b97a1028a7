import { channel } from 'node:diagnostics_channel';

/** What a transaction tells whoever subscribes through `node:diagnostics_channel`: by channel, the message. */
export interface TransactionSignals {
  /** The closure has resolved; COMMIT is sent next. */
  readonly 'oncebox:transaction:committing': TransactionSignal;
  /** The server has confirmed the COMMIT. */
  readonly 'oncebox:transaction:committed': TransactionSignal;
}

export interface TransactionSignal {
  /** The session's id at the server, as in its process list. */
  readonly connectionId: number;
}

/** Subscribers run at once, before the next statement of the caller. Costs a look-up while there is none. */
export function signal<Name extends keyof TransactionSignals>(name: Name, message: TransactionSignals[Name]): void {
  channel(name).publish(message);
}
