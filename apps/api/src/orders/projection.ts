import type { Projection } from '@oncebox/event-store';
import { type Order, type OrderEvent, order } from './order.ts';

/** The orders as rows, for queries over many of them. `oncebox projection rebuild orders` makes them anew. */
export const orders: Projection<Order, OrderEvent> = {
  name: 'orders',
  aggregate: order,
  table: 'orders',
  key: 'id',
  /** Every column, so that it does not matter what was there before, or whether anything was. */
  async write(tx, { id, version, state }) {
    if (state === null) return;
    const { customerId, status, reason, process, totalAmount, placedAt, updatedAt } = state;
    await tx.execute(
      `INSERT INTO orders (id, customer_id, status, reason, process, total_amount, version, placed_at, updated_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
       ON DUPLICATE KEY UPDATE
         customer_id = VALUES(customer_id), status = VALUES(status), reason = VALUES(reason), process = VALUES(process),
         total_amount = VALUES(total_amount), version = VALUES(version), placed_at = VALUES(placed_at),
         updated_at = VALUES(updated_at)`,
      [id, customerId, status, reason, process, totalAmount, version, new Date(placedAt), new Date(updatedAt)],
    );
  },
};
