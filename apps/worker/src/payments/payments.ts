import { isDuplicateKey, type Pool, type Transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import type { PaymentGateway } from './gateway.ts';

/** What became of an order's payment. `now` when this call has written it, and not an earlier one. */
export interface Payment {
  readonly status: 'processed' | 'declined' | 'refunded';
  readonly now: boolean;
}

/** What the gateway said, before the transaction that writes it down. */
export type Charge = 'charged' | 'declined' | 'refunded before';

/** A charge and its refund met between the gateway and the database. The next attempt asks the gateway again, and finds both. */
export class CrossedAtGatewayError extends Error {
  override readonly name = 'CrossedAtGatewayError';
}

// By order and operation. Under a message's id, a step that is sent again would charge twice.
const chargeKey = (orderId: string): string => `${orderId}:charge`;
const refundKey = (orderId: string): string => `${orderId}:refund`;

/** Milliseconds that the gateway has for an answer; then the attempt has failed, and the next one asks again. */
const GATEWAY_MS = 2_000;
const bounded = (signal: AbortSignal): AbortSignal => AbortSignal.any([signal, AbortSignal.timeout(GATEWAY_MS)]);

/** Has the gateway charge an order, outside any transaction; with nothing to pay, it is not asked. @throws when the gateway does not answer. */
export async function charge(
  pool: Pool,
  gateway: PaymentGateway,
  { orderId, amount, token }: { orderId: string; amount: number; token: string },
  signal: AbortSignal,
): Promise<Charge> {
  if ((await statusOf(pool, orderId)) === 'refunded') {
    await refund(gateway, orderId, signal);
    return 'refunded before';
  }
  if (amount === 0) return 'charged';
  return await gateway.charge({ key: chargeKey(orderId), amount, token }, bounded(signal));
}

/** Has the gateway give back what it has charged for an order, if anything. @throws when the gateway does not answer. */
export const refund = (gateway: PaymentGateway, orderId: string, signal: AbortSignal) =>
  gateway.refund({ key: refundKey(orderId), chargeKey: chargeKey(orderId) }, bounded(signal));

/**
 * Writes down what came of a charge, once for an order.
 *
 * @throws CrossedAtGatewayError when the order was refunded between the charge and this: the money must go back.
 */
export async function recordCharge(
  tx: Transaction,
  orderId: string,
  amount: number,
  charged: Charge,
): Promise<Payment> {
  if (charged === 'refunded before') return { status: 'refunded', now: false };
  const status = charged === 'charged' ? 'processed' : 'declined';
  if (await insert(tx, orderId, amount, status)) return { status, now: true };
  const found = (await lock(tx, orderId)) ?? status;
  if (found === 'refunded' && charged === 'charged') {
    throw new CrossedAtGatewayError('An order was charged after its refund');
  }
  return { status: found, now: false };
}

/**
 * Writes down a refund. Without a charge it leaves word, so that one that comes late is given back.
 *
 * @param amount what the gateway gave back: 0 for nothing.
 * @throws CrossedAtGatewayError when the order was charged after the gateway had found nothing to give back.
 */
export async function recordRefund(tx: Transaction, orderId: string, amount: number): Promise<void> {
  if (await insert(tx, orderId, amount, 'refunded')) return;
  if ((await lock(tx, orderId)) !== 'processed') return;
  if (amount === 0) throw new CrossedAtGatewayError('An order was charged while it was refunded');
  await tx.execute("UPDATE payments SET status = 'refunded', updated_at = UTC_TIMESTAMP(6) WHERE order_id = ?", [
    orderId,
  ]);
}

async function insert(tx: Transaction, orderId: string, amount: number, status: Payment['status']): Promise<boolean> {
  try {
    await tx.execute('INSERT INTO payments (order_id, amount, status) VALUES (?, ?, ?)', [orderId, amount, status]);
    return true;
  } catch (error) {
    if (isDuplicateKey(error)) return false;
    throw error;
  }
}

type Row = RowDataPacket & { status: Payment['status'] };

async function lock(tx: Transaction, orderId: string): Promise<Payment['status'] | undefined> {
  const [[row]] = await tx.execute<Row[]>('SELECT status FROM payments WHERE order_id = ? FOR UPDATE', [orderId]);
  return row?.status;
}

async function statusOf(pool: Pool, orderId: string): Promise<Payment['status'] | undefined> {
  const [[row]] = await pool.execute<Row[]>('SELECT status FROM payments WHERE order_id = ?', [orderId]);
  return row?.status;
}
