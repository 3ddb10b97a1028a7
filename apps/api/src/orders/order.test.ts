import { describe, expect, it } from 'vitest';
import { type Order, outcomeOf } from './order.ts';

const placed: Order = {
  customerId: 'c',
  status: 'placed',
  reason: null,
  process: 'choreography',
  items: [{ sku: 'SKU-1', quantity: 1, unitPrice: 100 }],
  totalAmount: 100,
  shippingAddress: '1 Main Street',
  placedAt: '2026-01-01T00:00:00.000Z',
  updatedAt: '2026-01-01T00:00:00.000Z',
};
const orderId = '01a1fd9b-5e68-7378-b248-6a6a3af84312';

describe('outcomeOf', () => {
  it('rejects an order whose stock was released, for an api that could not hear of the failed payment before', () => {
    expect(outcomeOf(placed, { type: 'StockReleased', data: { orderId } })).toEqual({
      type: 'OrderRejected',
      data: { reason: 'payment_declined' },
    });
  });

  it('leaves alone what has ended, and what a saga leads', () => {
    const released = { type: 'StockReleased', data: { orderId } } as const;
    expect(outcomeOf({ ...placed, status: 'rejected', reason: 'payment_declined' }, released)).toBeUndefined();
    expect(outcomeOf({ ...placed, process: 'orchestration' }, released)).toBeUndefined();
  });
});
