import { defineMessage } from '@oncebox/message';
import { z } from 'zod';

/** A message that says nothing, bound for the consumer of that name. */
export const Ticked = (routingKey: string) =>
  defineMessage({
    type: 'Ticked',
    version: 1,
    aggregateType: 'clock',
    aggregateId: () => 'x',
    routingKey,
    payload: z.strictObject({}),
  });
