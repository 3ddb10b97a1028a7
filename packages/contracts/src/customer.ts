import { defineMessage } from '@oncebox/message';
import { z } from 'zod';

/** The customer as it was right after the change; `version` lets a reader drop what is older than it has. */
const customer = z.strictObject({
  customerId: z.uuid(),
  email: z.email().max(254),
  name: z.string().min(1).max(200),
  version: z.int().min(1),
});

export const CustomerCreated = defineMessage({
  type: 'CustomerCreated',
  version: 1,
  aggregateType: 'customer',
  aggregateId: ({ customerId }) => customerId,
  routingKey: 'customer.created',
  payload: customer,
});

export const CustomerUpdated = defineMessage({
  type: 'CustomerUpdated',
  version: 1,
  aggregateType: 'customer',
  aggregateId: ({ customerId }) => customerId,
  routingKey: 'customer.updated',
  payload: customer,
});
