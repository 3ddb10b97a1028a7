import { channel } from 'node:diagnostics_channel';

/** What an inbox tells whoever subscribes through `node:diagnostics_channel`: by channel, the message. In this order for each message. */
export interface InboxSignals {
  /** The id is written, as the first thing of the transaction. Again when the transaction is. A duplicate ends before. */
  readonly 'oncebox:inbox:recorded': InboxSignal;
  /** The handler has resolved; COMMIT is next. */
  readonly 'oncebox:inbox:handled': InboxSignal;
  /** The effect is there to stay; the broker knows nothing of it yet. */
  readonly 'oncebox:inbox:committed': InboxSignal;
  /** Messages that were handled together have their verdicts. In one transaction when all went well. Not for held messages. */
  readonly 'oncebox:inbox:worked': WorkedSignal;
}

export interface WorkedSignal {
  readonly consumer: string;
  readonly messages: number;
  readonly seconds: number;
}

export interface InboxSignal {
  readonly consumer: string;
  readonly messageId: string;
}

/** Subscribers run at once, before the next statement of the caller. Costs a look-up while there is none. */
export function signal<Name extends keyof InboxSignals>(name: Name, message: InboxSignals[Name]): void {
  channel(name).publish(message);
}
