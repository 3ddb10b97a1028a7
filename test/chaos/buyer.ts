import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkOrders } from '../support/order-invariants.ts';
import { orderBody } from '../support/shopping.ts';
import type { Eyes, Select } from '../support/trio.ts';
import { type Asking, ask } from './client.ts';

type Looks = Pick<Eyes, 'shop' | 'fulfilment'>;

/** Orders instead of customers, for scarce stock, half of them led by each process; some cannot be paid. */

const SKUS = 20;
/** Pieces of each in the beginning. */
const STOCK = 60;

export interface Buyer extends Asking {
  /** Ids of the orders that were accepted. */
  readonly accepted: Set<string>;
  readonly signal: AbortSignal;
}

export const fillStock = ({ fulfilment }: Looks) =>
  fulfilment('UPDATE stock SET available = ?, reserved = 0', [String(STOCK)]);

/** Places orders until `signal`, each under an Idempotency-Key of its own until there is an answer. */
export async function buy(buyer: Buyer): Promise<void> {
  const { random, accepted, signal } = buyer;
  const mail = { email: `${randomUUID()}@example.com`, name: 'A buyer' };
  const customer = await ask(buyer, 'POST', '/customers', mail, { 'idempotency-key': randomUUID() });
  if (customer === 'unknown' || customer.id === undefined) throw new Error('No customer could be made');
  while (!signal.aborted) {
    const chance = random();
    const wish = {
      customerId: customer.id,
      items: [{ sku: `SKU-${1 + Math.floor(random() * SKUS)}`, quantity: 1 + Math.floor(random() * 3) }],
      token: chance < 0.7 ? 'tok_ok' : chance < 0.9 ? 'tok_declined' : 'tok_timeout',
      process: random() < 0.5 ? ('choreography' as const) : ('orchestration' as const),
    };
    const placed = await ask(buyer, 'POST', '/orders', orderBody(wish), { 'idempotency-key': randomUUID() });
    if (placed === 'unknown') continue; // it may be there: it must end as the others do
    if (placed.status !== 202 || placed.id === undefined) throw new Error(`POST /orders: ${placed.status}`);
    accepted.add(placed.id);
  }
}

/** Waits until nothing is left to do of any order. What it could not wait for is named by the comparison that follows. */
export async function untilEnded({ shop, fulfilment }: Looks, patienceMs: number): Promise<void> {
  const counts: readonly (readonly [Select, string])[] = [
    [shop, "SELECT COUNT(*) AS n FROM orders WHERE status = 'placed'"],
    [shop, "SELECT COUNT(*) AS n FROM outbox WHERE state <> 'published' AND aggregatetype <> 'hostile'"],
    [fulfilment, "SELECT COUNT(*) AS n FROM outbox WHERE state <> 'published'"],
    [fulfilment, "SELECT COUNT(*) AS n FROM sagas WHERE state IN ('running', 'stuck')"],
    [
      fulfilment,
      "SELECT COUNT(*) AS n FROM reservations r JOIN payments p ON p.order_id = r.order_id WHERE p.status = 'declined' AND r.state = 'reserved'",
    ],
  ];
  const isLeft = async (): Promise<boolean> => {
    for (const [select, sql] of counts) if (Number((await select(sql))[0]?.['n']) > 0) return true;
    return false;
  };
  const deadline = Date.now() + patienceMs;
  while ((await isLeft()) && Date.now() < deadline) await sleep(200);
}

/** @throws Error when an order is lost, has not ended, or does not agree with stock and payments. */
export async function checkBought(eyes: Looks, accepted: ReadonlySet<string>): Promise<void> {
  const ids = (await eyes.shop('SELECT id FROM orders')).map(({ id }) => String(id));
  const lost = accepted.difference(new Set(ids));
  if (lost.size > 0) throw new Error(`Orders accepted and not there: ${[...lost].slice(0, 5).join(', ')}`);
  console.log(`stock and payments are those of the orders: ${JSON.stringify(await checkOrders(eyes, ids, STOCK))}`);
}
