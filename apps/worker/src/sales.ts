import { OrderPlaced } from '@oncebox/contracts';
import { defineConsumer, onBatch } from '@oncebox/inbox';
import { asBytes } from '@oncebox/mysql';

/**
 * A read model: what has been ordered of each product, whatever became of the orders. The message carries all of it, so nobody is asked.
 *
 * Sums, because the inbox takes each order in once. One statement for a whole batch, in the order of the primary key: two batches
 * with products in common would deadlock otherwise.
 */
export const sales = defineConsumer({
  name: 'sales',
  handlers: [
    onBatch(OrderPlaced, {
      replays: true,
      async handle(tx, messages) {
        const sums = new Map<string, { orders: number; quantity: number; amount: number }>();
        for (const { sku, quantity, unitPrice } of messages.flatMap(({ payload }) => payload.items)) {
          const sum = sums.get(sku) ?? { orders: 0, quantity: 0, amount: 0 };
          sums.set(sku, {
            orders: sum.orders + 1, // an order has each SKU once
            quantity: sum.quantity + quantity,
            amount: sum.amount + quantity * unitPrice,
          });
        }
        const rows = [...sums].sort(([a], [b]) => (a < b ? -1 : 1));
        await tx.query(
          `INSERT INTO sales (sku, orders, quantity, amount) VALUES ?
           ON DUPLICATE KEY UPDATE orders = orders + VALUES(orders), quantity = quantity + VALUES(quantity),
             amount = amount + VALUES(amount), updated_at = UTC_TIMESTAMP(6)`,
          [rows.map(([sku, { orders, quantity, amount }]) => [asBytes(sku), orders, quantity, amount])],
        );
      },
    }),
  ],
});
