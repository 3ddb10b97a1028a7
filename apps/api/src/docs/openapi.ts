import { customer, customerChange, newCustomer } from '../customers/schemas.ts';
import { type ProblemName, problemSchema, problems, typeOf } from '../problem.ts';
import { type ApiResponse, type Header, type OpenApi, type Parameter, type Schema, schemaOf } from './document.ts';

const ref = (name: 'Customer' | 'NewCustomer' | 'CustomerChange' | 'Problem'): Schema => ({
  $ref: `#/components/schemas/${name}`,
});

const example = {
  id: '01980a5e-5c00-7000-8000-000000000001',
  email: 'ada@example.com',
  name: 'Ada Lovelace',
  version: 1,
  createdAt: '2026-01-05T09:30:00.000Z',
  updatedAt: '2026-01-05T09:30:00.000Z',
};
const changed = { ...example, name: 'Ada King', version: 2, updatedAt: '2026-01-05T09:45:00.000Z' };

const text: Schema = { type: 'string' };
const correlation: Header = {
  description: 'The id that was sent, or the one that was made.',
  schema: text,
  example: '01980a5e-5c00-7000-8000-00000000000c',
};
const location: Header = { description: 'Path of the customer.', schema: text, example: `/customers/${example.id}` };
const etag = (version: number): Header => ({
  description: 'The version, in quotes.',
  schema: text,
  example: `"${version}"`,
});

const header = (name: string, description: string, value: string, required = false): Parameter => ({
  name,
  in: 'header',
  required,
  description,
  schema: text,
  example: value,
});
const id: Parameter = {
  name: 'id',
  in: 'path',
  required: true,
  description: 'Id of a customer.',
  schema: { type: 'string', format: 'uuid' },
  example: example.id,
};
const lineage: readonly Parameter[] = [
  header(
    'X-Correlation-Id',
    'Up to 128 visible ASCII characters. Goes into the messages that the request causes, and into the log. Made where it is missing or malformed.',
    'order-4711',
  ),
  header(
    'traceparent',
    'W3C trace context, version 00. Goes into the messages too. Ignored where it is malformed.',
    '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
  ),
];
const ifMatch = header(
  'If-Match',
  'The ETag of the customer as you read it: one strong entity tag; * and lists are refused.',
  '"1"',
  true,
);
const idempotencyKey = header(
  'Idempotency-Key',
  'Names this request, so that it takes effect once however often it is sent: a new UUID for each new request, the same for a ' +
    'repetition. A string of 1 to 255 bytes in quotes. Remembered for 24 hours, unless configured otherwise.',
  '"8e03978e-40d5-43dd-bc93-6894a57f9324"',
);
const replayed: Header = {
  description: 'true when the request took effect before and this is the answer it had then.',
  schema: text,
  example: 'true',
};

/** What each kind of request can meet. Every request can meet the last three. */
const OF_A_BODY = ['malformed-json', 'body-too-large', 'unsupported-media-type', 'invalid-fields'] as const;
const OF_ANY = ['malformed-request', 'internal-error', 'database-unavailable'] as const;

/** One response for each status, with an example for each problem of that status. */
function problemResponses(...names: readonly ProblemName[]): Record<string, ApiResponse> {
  const statuses = new Set(names.map((name) => problems[name].status));
  return Object.fromEntries(
    [...statuses].sort().map((status) => {
      const same = names.filter((name) => problems[name].status === status);
      const headers = {
        'X-Correlation-Id': correlation,
        ...(status === 503 || same.includes('request-in-progress')
          ? { 'Retry-After': { description: 'Seconds.', schema: text, example: '2' } }
          : {}),
        ...(status === 415
          ? { Accept: { description: 'The type to send.', schema: text, example: 'application/json' } }
          : {}),
      };
      const examples = Object.fromEntries(
        same.map((name) => [name, { summary: problems[name].title, value: problemExample(name) }]),
      );
      const description = same.map((name) => problems[name].title).join('; or: ');
      return [
        status,
        { description, headers, content: { 'application/problem+json': { schema: ref('Problem'), examples } } },
      ];
    }),
  );
}

function problemExample(name: ProblemName) {
  const field = { pointer: '#/email', field: 'email' };
  const message =
    name === 'invalid-fields' ? 'must be an e-mail address' : name === 'email-taken' ? 'is taken' : undefined;
  return {
    type: typeOf(name),
    ...problems[name],
    ...(message === undefined ? {} : { errors: [{ ...field, message }] }),
  };
}

const json = (schema: Schema, value: unknown) => ({
  'application/json': { schema, examples: { customer: { value } } },
});

const answer = (description: string, value: typeof example, headers: Record<string, Header> = {}): ApiResponse => ({
  description,
  headers: { ...headers, ETag: etag(value.version), 'X-Correlation-Id': correlation },
  content: json(ref('Customer'), value),
});

export const openApi: OpenApi = {
  openapi: '3.1.0',
  info: {
    title: 'Oncebox customers',
    version: '1',
    description:
      'Customers, and an announcement of each change. A customer and the message about it are written in one transaction, so a ' +
      'change is announced if and only if it was answered with 201 or 200. The message broker need not be there.\n\n' +
      'Errors are RFC 9457 problems. Beside those of the operations below, a path that does not exist is 404 ' +
      '(no-such-resource), and a method that a path does not have is 405 (method-not-allowed) with the header Allow.',
  },
  servers: [{ url: '/' }],
  paths: {
    '/customers': {
      post: {
        operationId: 'createCustomer',
        summary: 'Create a customer',
        description:
          'Announced as CustomerCreated. With an Idempotency-Key it may be sent again after any answer, and after none.',
        parameters: [idempotencyKey, ...lineage],
        requestBody: {
          required: true,
          content: json(ref('NewCustomer'), { email: example.email, name: example.name }),
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
        requestBody: { required: true, content: json(ref('CustomerChange'), { name: changed.name }) },
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
      Problem: schemaOf(problemSchema),
    },
  },
};
