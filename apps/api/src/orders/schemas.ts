import { orderProcess, payment, quantity, rejectionReason, shippingAddress, sku } from '@oncebox/contracts';
import { z } from 'zod';

const object = { error: 'must be an object' };
const amount = z.int().min(0).describe('In minor units.');

export const newOrder = z.strictObject(
  {
    customerId: z.uuid({ error: 'must be the id of a customer' }),
    items: z
      .array(
        z.strictObject(
          { sku, quantity: quantity.max(10_000, { error: 'must be at most 10000' }).describe('How many of it.') },
          object,
        ),
        { error: 'must be an array' },
      )
      .min(1, { error: 'must have at least one item' })
      .max(100, { error: 'must have at most 100 items' })
      .describe('Items of the same SKU are added up.'),
    shippingAddress,
    payment: payment.describe('The token is what the payment provider knows the means of payment by.'),
    process: orderProcess
      .default('choreography')
      .describe('Who leads the order to its end: the services by their events, or a saga by its commands.'),
  },
  object,
);

const status = z.enum(['placed', 'confirmed', 'rejected']);

export const acceptedOrder = z.object({
  id: z.uuid().describe('UUIDv7, made by the api.'),
  status,
  totalAmount: amount,
});

const timelineEntry = z.object({
  type: z.string().describe('What happened: OrderPlaced, StockReserved, PaymentFailed and the like.'),
  at: z.iso.datetime().describe("When the api recorded it. UTC, by the database's clock."),
  reason: rejectionReason.optional(),
  amount: amount.optional(),
  correlationId: z.string().optional().describe('The same all through the process that the request began.'),
  causationId: z.string().optional().describe('Id of the message that told of it.'),
});

export const orderView = z.object({
  id: z.uuid(),
  customerId: z.uuid(),
  status,
  reason: rejectionReason.optional().describe('Of a rejected order.'),
  process: orderProcess,
  items: z.array(z.object({ sku, quantity, unitPrice: amount })),
  totalAmount: amount,
  shippingAddress,
  version: z.int().min(1).describe('One more with each entry of the timeline; the ETag.'),
  placedAt: z.iso.datetime(),
  updatedAt: z.iso.datetime(),
  timeline: z.array(timelineEntry).describe('What happened to it, in the order in which the api learned of it.'),
});

export type NewOrder = z.output<typeof newOrder>;
export type OrderView = z.output<typeof orderView>;
