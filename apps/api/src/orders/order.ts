import {
  OrderPlaced,
  orderProcess,
  PaymentFailed,
  PaymentProcessed,
  quantity,
  rejectionReason,
  StockReleased,
  StockReservationFailed,
  StockReserved,
  shippingAddress,
  sku,
} from '@oncebox/contracts';
import type { Aggregate, Recorded, Stream } from '@oncebox/event-store';
import type { Contract } from '@oncebox/message';
import { z } from 'zod';

/** Said by a contract, ours or another service's: what was announced, word for word. */
const said = <const Type extends string, Payload>({ type, schema }: Contract<Type, Payload>) =>
  z.object({ type: z.literal(type), data: schema });

/** What other services have done for an order. It is part of the order's history, and decides some of it. */
const heard = [
  said(StockReserved),
  said(StockReservationFailed),
  said(StockReleased),
  said(PaymentProcessed),
  said(PaymentFailed),
] as const;

const event = z.discriminatedUnion('type', [
  said(OrderPlaced),
  z.object({ type: z.literal('OrderConfirmed'), data: z.strictObject({}) }),
  z.object({ type: z.literal('OrderRejected'), data: z.strictObject({ reason: rejectionReason }) }),
  ...heard,
]);

const state = z
  .object({
    customerId: z.string(),
    status: z.enum(['placed', 'confirmed', 'rejected']),
    reason: rejectionReason.nullable(),
    process: orderProcess,
    items: z.array(z.object({ sku, quantity, unitPrice: z.int() })),
    totalAmount: z.int(),
    shippingAddress,
    /** ISO 8601, by the database's clock. */
    placedAt: z.iso.datetime(),
    updatedAt: z.iso.datetime(),
  })
  .nullable();

export type OrderEvent = z.output<typeof event>;
/** What another service said of an order. */
export type HeardEvent = z.output<(typeof heard)[number]>;
/** null until it is placed. */
export type Order = z.output<typeof state>;
export type OrderStream = Stream<Order>;

export const order: Aggregate<Order, OrderEvent> = {
  category: 'order',
  event,
  initial: null,
  evolve,
  // Few orders live so long: they have four or five events. It is there for those that do.
  snapshots: { every: 20, shape: 1, state },
};

function evolve(before: Order, event: Recorded<OrderEvent>): Order {
  const updatedAt = event.occurredAt.toISOString();
  if (event.type === 'OrderPlaced') {
    const { customerId, process, items, totalAmount, shippingAddress } = event.data;
    const given = { customerId, process, items, totalAmount, shippingAddress };
    return { ...given, status: 'placed', reason: null, placedAt: updatedAt, updatedAt };
  }
  if (before === null) return null;
  switch (event.type) {
    case 'OrderConfirmed':
      return { ...before, status: 'confirmed', updatedAt };
    case 'OrderRejected':
      return { ...before, status: 'rejected', reason: event.data.reason, updatedAt };
    default:
      return { ...before, updatedAt };
  }
}

/** How an order ends. */
export type Outcome = Extract<OrderEvent, { type: 'OrderConfirmed' | 'OrderRejected' }>;

/**
 * What follows from what another service said, where the services react to each other. An order that a saga leads ends by its commands, and
 * one that has ended stays as it is.
 */
export function outcomeOf(current: Order, event: HeardEvent): Outcome | undefined {
  if (current?.status !== 'placed' || current.process !== 'choreography') return undefined;
  switch (event.type) {
    case 'PaymentProcessed':
      return { type: 'OrderConfirmed', data: {} };
    case 'StockReservationFailed':
    case 'PaymentFailed':
      return { type: 'OrderRejected', data: { reason: event.data.reason } };
    // Follows from a failed payment. Who heard that one has rejected the order by now; an api whose queue was declared later has not.
    case 'StockReleased':
      return { type: 'OrderRejected', data: { reason: 'payment_declined' } };
    default:
      return undefined;
  }
}
