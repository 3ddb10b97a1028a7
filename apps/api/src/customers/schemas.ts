import { email as announceableEmail, name as announceableName } from '@oncebox/contracts';
import { z } from 'zod';

const email = announceableEmail.describe('Unique among customers; case does not tell two addresses apart.');

const trim = (given: unknown) => (typeof given === 'string' ? given.trim() : given);
const name = z
  .preprocess(
    trim,
    // Cs: half of a surrogate pair, which JSON can carry and UTF-8 cannot.
    announceableName.regex(/^[^\p{Cc}\p{Cs}\p{Zl}\p{Zp}]*$/u, {
      error: 'must not contain control characters or line breaks',
    }),
  )
  .describe('White space around it is removed.');

const object = { error: 'must be an object' };

export const newCustomer = z.strictObject({ email, name }, object);

export const customerChange = z
  .strictObject({ email: email.optional(), name: name.optional() }, object)
  .refine((change) => Object.values(change).some((value) => value !== undefined), {
    error: 'must have at least one of email and name',
  })
  .meta({ minProperties: 1 });

export const customer = z.object({
  id: z.uuid().describe('UUIDv7, made by the api.'),
  email: z.string(),
  name: z.string(),
  version: z.int().min(1).describe('One more with each change; the ETag.'),
  createdAt: z.iso.datetime().describe("UTC, by the database's clock."),
  updatedAt: z.iso.datetime(),
});

export type NewCustomer = z.output<typeof newCustomer>;
export type CustomerChange = z.output<typeof customerChange>;
export type Customer = z.output<typeof customer>;
