import { defineRequest } from '@oncebox/message';
import { z } from 'zod';
import { quantity, sku } from './order.ts';

/** How it is at the moment of the answer; only a reservation holds it so. */
export const availability = z.strictObject({
  sku,
  quantity,
  available: z.boolean().describe('Whether an order of this quantity could be filled.'),
  inStock: z.int().min(0).describe('How many there are; 0 of what is no product.'),
});

export const CheckAvailability = defineRequest({
  type: 'CheckAvailability',
  owner: 'inventory',
  question: z.strictObject({ sku, quantity }),
  answer: availability,
});
