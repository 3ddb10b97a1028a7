import { type ProblemName, problems, typeOf } from '../problem.ts';
import type { ApiResponse, Header, Parameter, Schema } from './document.ts';

type SchemaName =
  | 'Customer'
  | 'NewCustomer'
  | 'CustomerChange'
  | 'Order'
  | 'NewOrder'
  | 'AcceptedOrder'
  | 'Availability'
  | 'Problem';

export const ref = (name: SchemaName): Schema => ({ $ref: `#/components/schemas/${name}` });

export const text: Schema = { type: 'string' };
export const correlation: Header = {
  description: 'The id that was sent, or the one that was made.',
  schema: text,
  example: '01980a5e-5c00-7000-8000-00000000000c',
};
export const etag = (version: number): Header => ({
  description: 'The version, in quotes.',
  schema: text,
  example: `"${version}"`,
});

export const header = (name: string, description: string, value: string, required = false): Parameter => ({
  name,
  in: 'header',
  required,
  description,
  schema: text,
  example: value,
});
export const lineage: readonly Parameter[] = [
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
export const idempotencyKey = header(
  'Idempotency-Key',
  'Names this request, so that it takes effect once however often it is sent: a new UUID for each new request, the same for a ' +
    'repetition. A string of 1 to 255 bytes in quotes. Remembered for 24 hours, unless configured otherwise.',
  '"8e03978e-40d5-43dd-bc93-6894a57f9324"',
);
export const replayed: Header = {
  description: 'true when the request took effect before and this is the answer it had then.',
  schema: text,
  example: 'true',
};

/** What each kind of request can meet. Every request can meet the last three. */
export const OF_A_BODY = ['malformed-json', 'body-too-large', 'unsupported-media-type', 'invalid-fields'] as const;
export const OF_ANY = ['malformed-request', 'internal-error', 'database-unavailable'] as const;

/** One response for each status, with an example for each problem of that status. */
export function problemResponses(...names: readonly ProblemName[]): Record<string, ApiResponse> {
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

/** A body with one example of it, by the name that the page shows. */
export const json = (name: string, schema: Schema, value: unknown) => ({
  'application/json': { schema, examples: { [name]: { value } } },
});
