import type { Transaction } from '@oncebox/mysql';
import type { OutboxRow } from './row.ts';
import { settle } from './settle.ts';

/** So many rows are worth a statement of their own. */
const EARLY = 250;

export interface SettleEarly {
  /** Settles what is confirmed and not settled, once it is enough. To be called after each confirm, with all of them. */
  look(confirmed: readonly OutboxRow[]): void;
  /** A statement has failed: the transaction is lost, and with it the partitions, so whatever else is sent is sent twice. */
  readonly failed: boolean;
  /** @returns how many, from the first one on, are settled. @throws what a statement has failed with */
  done(): Promise<number>;
}

/**
 * Settles the first rows of a pass while the last ones wait for their confirms, when its connection has nothing else to do: the broker
 * is not kept waiting for it afterwards. In the pass's transaction like all else, so a pass that fails has settled nothing.
 */
export function settleEarly(tx: Transaction, settings: { readonly deleteRows: boolean }): SettleEarly {
  let settled = 0;
  let settling = Promise.resolve();
  let failed = false;
  return {
    get failed() {
      return failed;
    },
    look(confirmed) {
      if (confirmed.length - settled < EARLY) return;
      const seqs = confirmed.slice(settled).map((row) => row.seq);
      settled = confirmed.length;
      settling = settling.then(() => settle(tx, seqs, settings));
      settling.catch(() => {
        failed = true; // `done` tells why
      });
    },
    async done() {
      await settling;
      return settled;
    },
  };
}
