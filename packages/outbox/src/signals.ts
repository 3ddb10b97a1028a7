import { channel } from 'node:diagnostics_channel';

/**
 * What the relay tells whoever subscribes through `node:diagnostics_channel`: by channel, the message. In this order for each
 * pass; one that had no outcome says no more than that it claimed.
 */
export interface RelaySignals {
  /** Partitions are locked, nothing is sent yet. */
  readonly 'oncebox:relay:claimed': { readonly schema: string; readonly partitions: readonly number[] };
  /** The outcome of every message of the pass is known, nothing is written down yet. */
  readonly 'oncebox:relay:published': PassSignal;
  /** The outcomes are written; COMMIT is next. */
  readonly 'oncebox:relay:settled': PassSignal;
  readonly 'oncebox:relay:committed': PassSignal;
  /** A pass that had rows has ended, whether all of them were sent or not. */
  readonly 'oncebox:relay:passed': PassedSignal;
  /** Looking for work, a pass or cleaning threw; it is tried again after a pause. */
  readonly 'oncebox:relay:failed': {
    readonly schema: string;
    readonly reason: 'database away' | 'cannot settle' | 'error';
  };
}

/** Messages by what became of them, and seconds. */
export interface PassedSignal {
  readonly schema: string;
  readonly confirmed: number;
  /** No queue is bound for them. */
  readonly returned: number;
  readonly nacked: number;
  /** Can never be sent: parked. */
  readonly unsendable: number;
  /** Cut off by an outage: sent and not answered, or not sent. */
  readonly unknown: number;
  /** From the beginning of the transaction until the rows are read. */
  readonly claimSeconds: number;
  readonly publishSeconds: number;
  /** Writing the outcomes down, the commit included. */
  readonly settleSeconds: number;
}

export interface PassSignal {
  readonly schema: string;
  /** Confirmed, in the order of their confirms. */
  readonly messageIds: readonly string[];
  /** How many the broker refused: they wait and are tried again. */
  readonly refused: number;
  /** How many can never be sent. */
  readonly parked: number;
}

/** Subscribers run at once, before the next statement of the caller. Costs a look-up while there is none. */
export function signal<Name extends keyof RelaySignals>(name: Name, message: RelaySignals[Name]): void {
  channel(name).publish(message);
}

/** The last three alike. */
export function signalPass(
  stage: 'published' | 'settled' | 'committed',
  schema: string,
  { published, refused, parked }: { published: readonly string[]; refused: number; parked: number },
): void {
  if (published.length + refused + parked === 0) return;
  signal(`oncebox:relay:${stage}`, { schema, messageIds: published, refused, parked });
}
