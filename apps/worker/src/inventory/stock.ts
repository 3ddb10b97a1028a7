import { asBytes, isDuplicateKey, type Transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';

export interface Item {
  readonly sku: string;
  readonly quantity: number;
}

/** What became of an order's request for stock. `now` when this call has done it, and not an earlier one. */
export interface Reservation {
  readonly state: 'reserved' | 'refused' | 'released';
  readonly now: boolean;
}

type Row = RowDataPacket & { state: Reservation['state'] };
type StockRow = RowDataPacket & Item & { available: number };

/**
 * Reserves all of an order's items or none, once for an order: again, or after its release, it changes nothing.
 *
 * The order's own row comes first: of two copies of the request the second waits for the first there, and then sees its decision.
 *
 * @param items each SKU once.
 */
export async function reserve(tx: Transaction, orderId: string, items: readonly Item[]): Promise<Reservation> {
  const decided = await decide(tx, orderId, 'reserved');
  if (!decided.now) return decided;
  // In the order of the primary key, as every reservation and release takes them: orders with items in common would deadlock.
  const [rows] = await tx.query<StockRow[]>(
    'SELECT sku, available FROM stock FORCE INDEX (PRIMARY) WHERE sku IN (?) ORDER BY sku FOR UPDATE',
    [items.map(({ sku }) => asBytes(sku))],
  );
  const available = new Map(rows.map((row) => [row.sku, row.available]));
  for (const { sku, quantity } of items) {
    if ((available.get(sku) ?? 0) >= quantity) continue;
    await tx.execute("UPDATE reservations SET state = 'refused' WHERE order_id = ?", [orderId]);
    return { state: 'refused', now: true };
  }
  for (const { sku, quantity } of items) {
    await tx.execute('UPDATE stock SET available = available - ?, reserved = reserved + ? WHERE sku = ?', [
      quantity,
      quantity,
      sku,
    ]);
    await tx.execute('INSERT INTO reserved_items (order_id, sku, quantity) VALUES (?, ?, ?)', [orderId, sku, quantity]);
  }
  return decided;
}

/** Gives back what an order has reserved, once. With nothing reserved it leaves word, so that a reservation that comes late does nothing. */
export async function release(tx: Transaction, orderId: string): Promise<Reservation> {
  const decided = await decide(tx, orderId, 'released');
  if (decided.now || decided.state === 'released') return decided;
  await tx.execute("UPDATE reservations SET state = 'released', updated_at = UTC_TIMESTAMP(6) WHERE order_id = ?", [
    orderId,
  ]);
  const [items] = await tx.execute<(Item & RowDataPacket)[]>(
    'SELECT sku, quantity FROM reserved_items WHERE order_id = ? ORDER BY sku',
    [orderId],
  );
  for (const { sku, quantity } of items) {
    await tx.execute('UPDATE stock SET available = available + ?, reserved = reserved - ? WHERE sku = ?', [
      quantity,
      quantity,
      sku,
    ]);
  }
  return { state: 'released', now: decided.state === 'reserved' };
}

/** Writes the order's row, or locks the one that is there and says what it says. */
async function decide(tx: Transaction, orderId: string, state: Reservation['state']): Promise<Reservation> {
  try {
    await tx.execute('INSERT INTO reservations (order_id, state) VALUES (?, ?)', [orderId, state]);
    return { state, now: true };
  } catch (error) {
    if (!isDuplicateKey(error)) throw error;
  }
  const [[row]] = await tx.execute<Row[]>('SELECT state FROM reservations WHERE order_id = ? FOR UPDATE', [orderId]);
  return { state: row?.state ?? state, now: false };
}
