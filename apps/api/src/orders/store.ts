import { asBytes, type Transaction } from '@oncebox/mysql';
import { z } from 'zod';

const productRows = z.array(z.object({ sku: z.string(), price: z.int() }));

/**
 * Not locked: an order has the price of the moment in which it was placed.
 */
export async function pricesOf(tx: Transaction, skus: readonly string[]): Promise<ReadonlyMap<string, number>> {
  const [rows] = await tx.query('SELECT sku, price FROM products WHERE sku IN (?)', [skus.map(asBytes)]);
  return new Map(productRows.parse(rows).map(({ sku, price }) => [sku, price]));
}

/** Customers are never deleted, so one that is there stays. */
export async function isCustomer(tx: Transaction, id: string): Promise<boolean> {
  const [rows] = await tx.execute('SELECT 1 AS found FROM customers WHERE id = ?', [id]);
  return z.array(z.unknown()).parse(rows).length === 1;
}
