import type { ApiResponse, Header, OpenApi, Parameter } from './document.ts';
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

const example = {
  id: '01980a5e-5c00-7000-8000-000000000001',
  email: 'ada@example.com',
  name: 'Ada Lovelace',
  version: 1,
  createdAt: '2026-01-05T09:30:00.000Z',
  updatedAt: '2026-01-05T09:30:00.000Z',
};
const changed = { ...example, name: 'Ada King', version: 2, updatedAt: '2026-01-05T09:45:00.000Z' };

const location: Header = { description: 'Path of the customer.', schema: text, example: `/customers/${example.id}` };
const id: Parameter = {
  name: 'id',
  in: 'path',
  required: true,
  description: 'Id of a customer.',
  schema: { type: 'string', format: 'uuid' },
  example: example.id,
};
const ifMatch = header(
  'If-Match',
  'The ETag of the customer as you read it: one strong entity tag; * and lists are refused.',
  '"1"',
  true,
);
const acceptLanguage = header(
  'Accept-Language',
  'Whom it creates is written to in the first of these that is known, or in English.',
  'de-CH, en;q=0.8',
);
const answer = (description: string, value: typeof example, headers: Record<string, Header> = {}): ApiResponse => ({
  description,
  headers: { ...headers, ETag: etag(value.version), 'X-Correlation-Id': correlation },
  content: json('customer', ref('Customer'), value),
});

export const customerPaths: OpenApi['paths'] = {
  '/customers': {
    post: {
      operationId: 'createCustomer',
      summary: 'Create a customer',
      description:
        'Announced as CustomerCreated. With an Idempotency-Key it may be sent again after any answer, and after none.',
      parameters: [acceptLanguage, idempotencyKey, ...lineage],
      requestBody: {
        required: true,
        content: json('customer', ref('NewCustomer'), { email: example.email, name: example.name }),
      },
      responses: {
        201: answer('The customer that was created.', example, {
          Location: location,
          'Idempotency-Replayed': replayed,
        }),
        ...problemResponses(
          ...OF_A_BODY,
          'malformed-idempotency-key',
          'email-taken',
          'request-in-progress',
          'idempotency-key-reused',
          'outcome-unknown',
          ...OF_ANY,
        ),
      },
    },
  },
  '/customers/{id}': {
    get: {
      operationId: 'getCustomer',
      summary: 'Read a customer',
      parameters: [id, header('If-None-Match', 'ETags that you have.', '"1"'), ...lineage],
      responses: {
        200: answer('The customer.', example),
        304: {
          description: 'The customer still has an ETag that you sent.',
          headers: { ETag: etag(1), 'X-Correlation-Id': correlation },
        },
        ...problemResponses('no-such-customer', ...OF_ANY),
      },
    },
    patch: {
      operationId: 'changeCustomer',
      summary: 'Change a customer',
      description:
        'Announced as CustomerUpdated. Each PATCH that is answered with 200 makes a new version, also when its values are those that the customer had.',
      parameters: [id, ifMatch, ...lineage],
      requestBody: { required: true, content: json('customer', ref('CustomerChange'), { name: changed.name }) },
      responses: {
        200: answer('The customer as it is now.', changed),
        ...problemResponses(
          ...OF_A_BODY,
          'malformed-if-match',
          'no-such-customer',
          'email-taken',
          'stale-version',
          'version-required',
          'outcome-unknown',
          ...OF_ANY,
        ),
      },
    },
  },
};
