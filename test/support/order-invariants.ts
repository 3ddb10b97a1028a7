import { deepStrictEqual } from 'node:assert/strict';
import type { RowDataPacket } from 'mysql2/promise';
import type { Eyes } from './trio.ts';

/** What must hold of orders once no more is to come of them. Free of vitest, so that the long runs use it as well. */

export interface OrderFindings {
  readonly orders: number;
  readonly confirmed: number;
  /** By reason. */
  readonly rejected: Readonly<Record<string, number>>;
}

/**
 * Every order has ended, and stock, payments and the gateway's books are those of the confirmed orders: no more, no less, and each once.
 *
 * @param ids of the orders, at least one; each must be there.
 * @param stockOfEach pieces of each SKU before the first order.
 * @throws AssertionError that shows what differs.
 */
export async function checkOrders(
  { shop, fulfilment }: Pick<Eyes, 'shop' | 'fulfilment'>,
  ids: readonly string[],
  stockOfEach: number,
): Promise<OrderFindings> {
  const orders = await shop('SELECT id, status, reason, total_amount FROM orders WHERE id IN (?) ORDER BY id', [ids]);
  deepStrictEqual(orders.map(idOf), [...ids].sort(), 'the orders that there are');
  const unended = orders.filter(({ status }) => status === 'placed');
  deepStrictEqual(unended.map(idOf), [], 'orders that have not ended');
  const confirmed = orders.filter(({ status }) => status === 'confirmed');

  const wanted = new Map<string, number>();
  const placed = await shop("SELECT data FROM events WHERE type = 'OrderPlaced' AND stream_id IN (?)", [
    confirmed.map(idOf),
  ]);
  for (const { data } of placed) {
    for (const { sku, quantity } of JSON.parse(data).items) wanted.set(sku, (wanted.get(sku) ?? 0) + quantity);
  }
  const stock = await fulfilment('SELECT sku, available, reserved FROM stock ORDER BY sku');
  deepStrictEqual(
    stock.map(({ sku, available, reserved }) => ({ sku, reserved, all: available + reserved })),
    stock.map(({ sku }) => ({ sku, reserved: wanted.get(sku) ?? 0, all: stockOfEach })),
    'stock',
  );

  const amounts = (rows: readonly RowDataPacket[]) => rows.map(({ id, amount }) => [String(id), Number(amount)]).sort();
  const paid = await fulfilment(
    "SELECT order_id AS id, amount FROM payments WHERE status = 'processed' AND order_id IN (?)",
    [ids],
  );
  const owed = confirmed.map((row) => Object.assign(row, { amount: row['total_amount'] }));
  deepStrictEqual(amounts(paid), amounts(owed), 'payments');
  const [kept] = await fulfilment(
    "SELECT COALESCE(SUM(IF(outcome = 'charged', amount, 0)) - SUM(IF(outcome = 'refunded', amount, 0)), 0) AS amount FROM gateway_operations WHERE SUBSTRING_INDEX(idempotency_key, ':', 1) IN (?)",
    [ids],
  );
  const total = owed.reduce((sum, { amount }) => sum + Number(amount), 0);
  deepStrictEqual(Number(kept?.['amount']), total, 'what the gateway has kept');

  const rejected = Map.groupBy(
    orders.filter(({ status }) => status === 'rejected'),
    ({ reason }) => String(reason),
  );
  return {
    orders: orders.length,
    confirmed: confirmed.length,
    rejected: Object.fromEntries(Array.from(rejected, ([reason, rows]) => [reason, rows.length])),
  };
}

const idOf = (row: RowDataPacket): string => String(row['id']);
