import { availability, quantity, sku } from '@oncebox/contracts';
import { z } from 'zod';

const integer = { error: 'must be an integer' };

export const availabilityQuery = z.strictObject({
  sku,
  quantity: z
    .string(integer)
    .regex(/^\d{1,9}$/, integer)
    .transform(Number)
    .pipe(quantity),
});

export const availabilityView = z.object({
  ...availability.shape,
  processingMs: z.number().min(0).describe('Milliseconds of work on the answer, without its way there and back.'),
});

export type Availability = z.output<typeof availabilityView>;
