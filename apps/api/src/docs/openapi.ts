import { availabilityView } from '../availability/schemas.ts';
import { customer, customerChange, newCustomer } from '../customers/schemas.ts';
import { acceptedOrder, newOrder, orderView } from '../orders/schemas.ts';
import { problemSchema } from '../problem.ts';
import { availabilityPaths } from './availability.ts';
import { customerPaths } from './customers.ts';
import { type OpenApi, schemaOf } from './document.ts';
import { orderPaths } from './orders.ts';
import { correlation, text } from './parts.ts';

export const openApi: OpenApi = {
  openapi: '3.1.0',
  info: {
    title: 'Oncebox customers and orders',
    version: '1',
    description:
      'Customers and orders, and an announcement of each change. A change and the message about it are written in one transaction, so ' +
      'it is announced if and only if it was answered with 2xx. The message broker need not be there, but for /availability.\n\n' +
      'Errors are RFC 9457 problems. Beside those of the operations below, a path that does not exist is 404 ' +
      '(no-such-resource), and a method that a path does not have is 405 (method-not-allowed) with the header Allow.',
  },
  servers: [{ url: '/' }],
  paths: {
    ...customerPaths,
    ...orderPaths,
    ...availabilityPaths,
    '/openapi.json': {
      get: {
        operationId: 'getOpenApi',
        summary: 'Read this document',
        responses: {
          200: {
            description: 'OpenAPI 3.1.',
            headers: { 'X-Correlation-Id': correlation },
            content: { 'application/json': { schema: { type: 'object' } } },
          },
        },
      },
    },
    '/docs': {
      get: {
        operationId: 'getDocs',
        summary: 'Read this document as a page',
        responses: {
          200: {
            description: 'A page that loads nothing else.',
            headers: { 'X-Correlation-Id': correlation },
            content: { 'text/html': { schema: text } },
          },
        },
      },
    },
  },
  components: {
    schemas: {
      Customer: schemaOf(customer),
      NewCustomer: schemaOf(newCustomer),
      CustomerChange: schemaOf(customerChange),
      Order: schemaOf(orderView),
      NewOrder: schemaOf(newOrder),
      AcceptedOrder: schemaOf(acceptedOrder),
      Availability: schemaOf(availabilityView),
      Problem: schemaOf(problemSchema),
    },
  },
};
