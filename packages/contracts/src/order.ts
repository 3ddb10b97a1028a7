import { defineMessage } from '@oncebox/message';
import { z } from 'zod';

// All of them are about one order and have its id as their key, whichever service announces them, so that what one service says
// of an order arrives in the order in which it was said. Amounts are integers in minor units (cents).

/** `choreography`: services react to each other's events. `orchestration`: a saga commands them. */
export const orderProcess = z.enum(['choreography', 'orchestration']);

/** Why an order was rejected: the same words in both processes, but that only a saga has a time-out. */
export const rejectionReason = z.enum(['out_of_stock', 'payment_declined', 'timed_out']);

export const sku = z
  .string({ error: 'must be a string' })
  .regex(/^[A-Za-z0-9._-]{1,64}$/, { error: 'must have 1 to 64 letters, digits, ".", "_" or "-"' });

export const quantity = z
  .int({ error: 'must be an integer' })
  .min(1, { error: 'must be at least 1' })
  .max(1_000_000, { error: 'must be at most 1000000' });

const ADDRESS_CHARACTERS = 1_000;
const line = z.string().max(ADDRESS_CHARACTERS);

/** As the customer writes it: free text, or lines with names. Nobody here reads it. */
export const shippingAddress = z.union([line.min(1), z.record(z.string().max(64), line)], {
  error: `must be a text of 1 to ${ADDRESS_CHARACTERS} characters, or an object of such texts`,
});

/** What the payment provider knows the means of payment by. */
export const payment = z.strictObject(
  {
    token: z
      .string({ error: 'must be a string' })
      .regex(/^[\x21-\x7e]{1,128}$/, { error: 'must have 1 to 128 visible ASCII characters' }),
  },
  { error: 'must be an object' },
);

const orderId = z.uuid();
const customerId = z.uuid();
const amount = z.int().min(0);
const aboutOrder = {
  version: 1,
  aggregateType: 'order',
  aggregateId: (payload: { orderId: string }) => payload.orderId,
};

/** Fat: it carries all that its consumers need, so that none of them has to ask. */
export const OrderPlaced = defineMessage({
  ...aboutOrder,
  type: 'OrderPlaced',
  routingKey: 'order.placed',
  payload: z.strictObject({
    orderId,
    customerId,
    /** Each SKU once. */
    items: z.array(z.strictObject({ sku, quantity, unitPrice: amount })).min(1),
    totalAmount: amount,
    shippingAddress,
    payment,
    process: orderProcess,
  }),
});

/** Thin: who needs more fetches the order, and gets it as it is then. */
export const OrderConfirmed = defineMessage({
  ...aboutOrder,
  type: 'OrderConfirmed',
  routingKey: 'order.confirmed',
  delivery: 'optional',
  payload: z.strictObject({ orderId, customerId, timestamp: z.iso.datetime() }),
});

export const OrderRejected = defineMessage({
  ...aboutOrder,
  type: 'OrderRejected',
  routingKey: 'order.rejected',
  delivery: 'optional',
  payload: z.strictObject({ orderId, customerId, reason: rejectionReason }),
});

export const StockReserved = defineMessage({
  ...aboutOrder,
  type: 'StockReserved',
  routingKey: 'stock.reserved',
  /** `amount` and `payment` are for whoever takes the payment. */
  payload: z.strictObject({ orderId, customerId, amount, payment }),
});

export const StockReservationFailed = defineMessage({
  ...aboutOrder,
  type: 'StockReservationFailed',
  routingKey: 'stock.reservation-failed',
  payload: z.strictObject({ orderId, reason: rejectionReason }),
});

export const StockReleased = defineMessage({
  ...aboutOrder,
  type: 'StockReleased',
  routingKey: 'stock.released',
  payload: z.strictObject({ orderId }),
});

export const PaymentProcessed = defineMessage({
  ...aboutOrder,
  type: 'PaymentProcessed',
  routingKey: 'payment.processed',
  payload: z.strictObject({ orderId, amount }),
});

export const PaymentFailed = defineMessage({
  ...aboutOrder,
  type: 'PaymentFailed',
  routingKey: 'payment.failed',
  payload: z.strictObject({ orderId, reason: rejectionReason }),
});
