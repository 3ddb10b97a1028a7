import { quantity, sku } from '@oncebox/contracts';
import { type OpenApi, type Parameter, type Schema, schemaOf } from './document.ts';
import { correlation, json, lineage, OF_ANY, problemResponses, ref } from './parts.ts';

const query = (name: string, description: string, schema: Schema, example: string): Parameter => ({
  name,
  in: 'query',
  required: true,
  description,
  schema,
  example,
});

export const availabilityPaths: OpenApi['paths'] = {
  '/availability': {
    get: {
      operationId: 'getAvailability',
      summary: 'Ask whether a product is in stock',
      description:
        'Asked of the service that keeps the stock, over the message broker, when you ask; nothing is reserved by it. This is the one ' +
        'operation that needs the broker.',
      parameters: [
        query('sku', 'Of a product.', schemaOf(sku), 'SKU-1'),
        query('quantity', 'How many of it.', schemaOf(quantity), '2'),
        ...lineage,
      ],
      responses: {
        200: {
          description: 'How it is now.',
          headers: { 'X-Correlation-Id': correlation },
          content: json('availability', ref('Availability'), {
            sku: 'SKU-1',
            quantity: 2,
            available: true,
            inStock: 998,
            processingMs: 0.8,
          }),
        },
        ...problemResponses('invalid-fields', ...OF_ANY, 'upstream-unavailable', 'upstream-timeout'),
      },
    },
  },
};
