import type { Header, OpenApi, Parameter } from './document.ts';
import {
  correlation,
  etag,
  header,
  idempotencyKey,
  json,
  lineage,
  OF_A_BODY,
  OF_ANY,
  problemResponses,
  ref,
  replayed,
  text,
} from './parts.ts';

const placed = {
  customerId: '01980a5e-5c00-7000-8000-000000000001',
  shippingAddress: { name: 'Ada Lovelace', street: 'St James’s Square 12', city: 'London' },
  process: 'choreography',
} as const;
const line = { sku: 'SKU-1', quantity: 2 };
const orderId = '01980a5e-5c00-7000-8000-0000000000a1';
const totalAmount = 498;

const entry = (type: string, second: string, causationId?: string) => ({
  type,
  at: `2026-01-05T09:30:${second}Z`,
  correlationId: 'order-4711',
  ...(causationId === undefined ? {} : { causationId }),
});
const reservation = '01980a5e-5c00-7000-8000-0000000000b1';
const charge = '01980a5e-5c00-7000-8000-0000000000b2';
const confirmed = {
  ...placed,
  id: orderId,
  status: 'confirmed',
  items: [{ ...line, unitPrice: 249 }],
  totalAmount,
  version: 4,
  placedAt: '2026-01-05T09:30:00.000Z',
  updatedAt: '2026-01-05T09:30:00.210Z',
  timeline: [
    entry('OrderPlaced', '00.000'),
    { ...entry('StockReserved', '00.090', reservation), amount: totalAmount },
    { ...entry('PaymentProcessed', '00.210', charge), amount: totalAmount },
    entry('OrderConfirmed', '00.210', charge),
  ],
};

const location: Header = { description: 'Path of the order.', schema: text, example: `/orders/${orderId}` };
const id: Parameter = {
  name: 'id',
  in: 'path',
  required: true,
  description: 'Id of an order.',
  schema: { type: 'string', format: 'uuid' },
  example: orderId,
};

export const orderPaths: OpenApi['paths'] = {
  '/orders': {
    post: {
      operationId: 'placeOrder',
      summary: 'Place an order',
      description:
        'Announced as OrderPlaced. Whether there is stock, and whether the payment goes through, is found out afterwards: the order ends ' +
        'confirmed or rejected. With an Idempotency-Key it may be sent again after any answer, and after none.',
      parameters: [idempotencyKey, ...lineage],
      requestBody: {
        required: true,
        content: json('order', ref('NewOrder'), { ...placed, items: [line], payment: { token: 'tok_ok' } }),
      },
      responses: {
        202: {
          description: 'The order has been placed.',
          headers: { Location: location, 'Idempotency-Replayed': replayed, 'X-Correlation-Id': correlation },
          content: json('order', ref('AcceptedOrder'), { id: orderId, status: 'placed', totalAmount }),
        },
        ...problemResponses(
          ...OF_A_BODY,
          'malformed-idempotency-key',
          'version-conflict',
          'request-in-progress',
          'idempotency-key-reused',
          'outcome-unknown',
          ...OF_ANY,
        ),
      },
    },
  },
  '/orders/{id}': {
    get: {
      operationId: 'getOrder',
      summary: 'Read an order',
      description: 'With what has happened to it so far. Its events tell it, so it is never behind what was announced.',
      parameters: [id, header('If-None-Match', 'ETags that you have.', '"4"'), ...lineage],
      responses: {
        200: {
          description: 'The order.',
          headers: { ETag: etag(4), 'X-Correlation-Id': correlation },
          content: json('order', ref('Order'), confirmed),
        },
        304: {
          description: 'The order still has an ETag that you sent.',
          headers: { ETag: etag(4), 'X-Correlation-Id': correlation },
        },
        ...problemResponses('no-such-order', ...OF_ANY),
      },
    },
  },
};
