import { defineMessage, nextVersion } from '@oncebox/message';
import { z } from 'zod';

// The limits of the columns, for everything that takes a customer in and everything that announces one: what is accepted must
// be announceable.

/** ASCII alone, so that what zod counts, UTF-16 units, are characters. */
export const email = z
  .email({ error: 'must be an e-mail address' })
  .max(254, { error: 'must have at most 254 characters' });

const NAME_CHARACTERS = 200;

/** Its length in code points, as the column and JSON Schema count. To zod's max(), which counts UTF-16 units, an emoji is two. */
export const name = z
  .string({ error: 'must be a string' })
  .min(1, { error: 'must not be empty' })
  .refine((text) => [...text].length <= NAME_CHARACTERS, { error: `must have at most ${NAME_CHARACTERS} characters` })
  .meta({ maxLength: NAME_CHARACTERS });

/** The customer as it was right after the change; `version` lets a reader drop what is older than it has. */
const customer = z.strictObject({
  customerId: z.uuid(),
  email,
  name,
  version: z.int().min(1),
});

const customerId = (payload: { readonly customerId: string }): string => payload.customerId;

export const CustomerCreatedV1 = defineMessage({
  type: 'CustomerCreated',
  version: 1,
  aggregateType: 'customer',
  aggregateId: customerId,
  routingKey: 'customer.created',
  payload: customer,
});

/** Whom v1 announced was written to in English. */
export const CustomerCreated = nextVersion(CustomerCreatedV1, {
  aggregateId: customerId,
  // Any language rather than a list of ours: a word more in an enum would be a version more.
  payload: customer.extend({
    language: z
      .string()
      .regex(/^[a-z]{2}$/)
      .describe('To write to them in, by ISO 639-1; a reader that does not know it writes in English.'),
  }),
  upcast: (v1) => ({ ...v1, language: 'en' }),
});

export const CustomerUpdated = defineMessage({
  type: 'CustomerUpdated',
  version: 1,
  aggregateType: 'customer',
  aggregateId: customerId,
  routingKey: 'customer.updated',
  payload: customer,
});
