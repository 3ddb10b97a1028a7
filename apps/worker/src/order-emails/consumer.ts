import { OrderConfirmed, OrderPlaced } from '@oncebox/contracts';
import { type Consumer, defineConsumer, on } from '@oncebox/inbox';
import type { Transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import type { OrdersApi } from './orders-api.ts';

/** The directory has not heard of the customer yet: their announcement is another key's, and may come later. Retried. */
export class CustomerNotHeardOfError extends Error {
  override readonly name = 'CustomerNotHeardOfError';
}

/**
 * Writes to the customer when an order was placed and when it is confirmed. A row of `emails` stands for the e-mail.
 *
 * OrderPlaced is fat: what the e-mail says is in it. OrderConfirmed is thin, so the order is fetched; in `prepare`, because no
 * transaction should be open across a call to another service. Neither asks for the customer, of whom this service keeps a copy.
 */
export const orderEmails = (orders: OrdersApi): Consumer =>
  defineConsumer({
    name: 'order-emails',
    handlers: [
      on(OrderPlaced, {
        handle: (tx, { id, payload }) => write(tx, id, payload.customerId, 'We have your order', payload),
      }),
      on(OrderConfirmed, {
        prepare: ({ payload, lineage }) => orders.order(payload.orderId, lineage),
        handle: (tx, { id, payload }, order) => write(tx, id, payload.customerId, 'Your order is confirmed', order),
      }),
    ],
  });

interface Contents {
  readonly items: readonly { readonly sku: string; readonly quantity: number }[];
  readonly totalAmount: number;
}

async function write(
  tx: Transaction,
  messageId: string,
  customerId: string,
  subject: string,
  { items, totalAmount }: Contents,
): Promise<void> {
  // Not locked: an address that changes at this moment is as good before as after.
  const [[customer]] = await tx.execute<(RowDataPacket & { name: string; email: string })[]>(
    'SELECT name, email FROM customer_directory WHERE customer_id = ?',
    [customerId],
  );
  if (customer === undefined) throw new CustomerNotHeardOfError('No such customer in customer_directory');
  const lines = items.map(({ sku, quantity }) => `${quantity} × ${sku}`);
  const body = `Hello ${customer.name},\n\n${[...lines, `Total: ${(totalAmount / 100).toFixed(2)}`].join('\n')}`;
  await tx.execute('INSERT INTO emails (message_id, customer_id, recipient, subject, body) VALUES (?, ?, ?, ?, ?)', [
    messageId,
    customerId,
    customer.email,
    subject,
    body,
  ]);
}
