import type { Aggregate } from '@oncebox/event-store';
import { z } from 'zod';

/** An aggregate whose state shows the order of its events: a sum would be the same in any order. */
const event = z.discriminatedUnion('type', [
  z.object({ type: z.literal('Deposited'), data: z.strictObject({ amount: z.int() }) }),
  z.object({ type: z.literal('Doubled'), data: z.strictObject({}) }),
]);
const state = z.object({ balance: z.int(), trail: z.string(), changedAt: z.string().nullable() });

export type LedgerEvent = z.output<typeof event>;
export type Ledger = z.output<typeof state>;

export const ledger: Aggregate<Ledger, LedgerEvent> = {
  category: 'ledger',
  event,
  initial: { balance: 0, trail: '', changedAt: null },
  evolve({ balance, trail }, { type, data, version, occurredAt }) {
    const changedAt = occurredAt.toISOString();
    if (type === 'Doubled') return { balance: (balance * 2) % 1_000_003, trail: `${trail} ${version}*2`, changedAt };
    return { balance: (balance + data.amount) % 1_000_003, trail: `${trail} ${version}+${data.amount}`, changedAt };
  },
};

/** The same with a snapshot after every `every` events. */
export const withSnapshots = (every: number): Aggregate<Ledger, LedgerEvent> => ({
  ...ledger,
  snapshots: { every, shape: 1, state },
});

export const deposited = (amount: number): LedgerEvent => ({ type: 'Deposited', data: { amount } });
export const doubled: LedgerEvent = { type: 'Doubled', data: {} };
