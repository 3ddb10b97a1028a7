import { defineCommand, replyTo } from '@oncebox/message';
import { z } from 'zod';
import { payment, quantity, rejectionReason, sku } from './order.ts';

// What the saga of order fulfilment asks of others. Each is done at most once for an order, however often it is sent, and answered
// each time; one that undoes may come before what it undoes, which then does nothing any more.

const version = 1;
const orderId = z.uuid();
const amount = z.int().min(0);

export const ReserveStock = defineCommand({
  type: 'ReserveStock',
  version,
  owner: 'inventory',
  payload: z.strictObject({ replyTo, orderId, items: z.array(z.strictObject({ sku, quantity })).min(1) }),
});

export const ReleaseStock = defineCommand({
  type: 'ReleaseStock',
  version,
  owner: 'inventory',
  payload: z.strictObject({ replyTo, orderId }),
});

export const ChargePayment = defineCommand({
  type: 'ChargePayment',
  version,
  owner: 'payments',
  payload: z.strictObject({ replyTo, orderId, amount, payment }),
});

export const RefundPayment = defineCommand({
  type: 'RefundPayment',
  version,
  owner: 'payments',
  payload: z.strictObject({ replyTo, orderId }),
});

/** `orders` is a consumer of the api. */
export const ConfirmOrder = defineCommand({
  type: 'ConfirmOrder',
  version,
  owner: 'orders',
  payload: z.strictObject({ replyTo, orderId }),
});

export const RejectOrder = defineCommand({
  type: 'RejectOrder',
  version,
  owner: 'orders',
  payload: z.strictObject({ replyTo, orderId, reason: rejectionReason }),
});
