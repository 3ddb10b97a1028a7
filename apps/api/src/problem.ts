import { z } from 'zod';

const URN = 'urn:oncebox:problem:';

export const typeOf = (name: ProblemName): string => URN + name;

/**
 * Every problem that this api answers with. The names are part of the contract with clients. `detail` is what the answer says
 * unless the one who throws knows more, and what the documentation explains.
 */
export const problems = {
  'malformed-request': {
    status: 400,
    title: 'The request is not valid HTTP for this resource',
    detail: 'The path is not validly encoded, or the body ended before its announced length.',
  },
  'malformed-json': {
    status: 400,
    title: 'The body is not JSON',
    detail: 'The body cannot be parsed as JSON in UTF-8.',
  },
  'malformed-if-match': {
    status: 400,
    title: 'If-Match is not one entity tag',
    detail: 'If-Match must be the one ETag of the customer as you read it, quotes included. * is not accepted.',
  },
  'malformed-idempotency-key': {
    status: 400,
    title: 'Idempotency-Key is not one key',
    detail:
      'Idempotency-Key must be one string of 1 to 255 bytes in quotes, for example Idempotency-Key: ' +
      '"8e03978e-40d5-43dd-bc93-6894a57f9324". A quote or a backslash inside is escaped by a backslash. The quotes may be left ' +
      'out where the key is visible ASCII without quotes, backslashes, commas and semicolons.',
  },
  'no-such-resource': {
    status: 404,
    title: 'There is nothing at this path',
    detail: 'The resources of this api are listed at /docs and /openapi.json.',
  },
  'no-such-customer': {
    status: 404,
    title: 'There is no customer with this id',
    detail: 'The id in the path is not that of a customer.',
  },
  'no-such-order': {
    status: 404,
    title: 'There is no order with this id',
    detail: 'The id in the path is not that of an order.',
  },
  'method-not-allowed': {
    status: 405,
    title: 'The resource does not have this method',
    detail: 'The header Allow names the methods that it has.',
  },
  'email-taken': {
    status: 409,
    title: 'Another customer has this e-mail address',
    detail: 'Nothing was changed: e-mail addresses are unique, and case does not tell two apart.',
  },
  'request-in-progress': {
    status: 409,
    title: 'A request with this Idempotency-Key is in progress',
    detail: 'Send the same request again in a moment: it will be answered as the first one was, if that took effect.',
  },
  'version-conflict': {
    status: 409,
    title: 'Somebody else has changed this at the same time',
    detail: 'Nothing was changed. Read it again, and send the request again if it still makes sense.',
  },
  'stale-version': {
    status: 412,
    title: 'The customer is not at this version',
    detail: 'The customer has been changed since. Read it again, decide again, and send its new ETag as If-Match.',
  },
  'body-too-large': { status: 413, title: 'The body is too large', detail: 'The body may have 100 kB.' },
  'unsupported-media-type': {
    status: 415,
    title: 'The body must be JSON in UTF-8',
    detail: 'Send Content-Type: application/json, in UTF-8 and without a Content-Encoding.',
  },
  'invalid-fields': {
    status: 422,
    title: 'Some fields are not valid',
    detail: 'Nothing was changed: email must be an e-mail address.',
  },
  'idempotency-key-reused': {
    status: 422,
    title: 'This Idempotency-Key belongs to another request',
    detail:
      'Nothing was changed: the key was used with another method, path or body, compared byte for byte. Send a new request with a ' +
      'new key, and a repetition with the bytes of the first.',
  },
  'version-required': {
    status: 428,
    title: 'A change must say which version it changes',
    detail: 'Send If-Match with the ETag of the customer as you read it, for example If-Match: "1".',
  },
  'internal-error': { status: 500, title: 'The request failed', detail: 'The fault is ours and has been logged.' },
  'database-unavailable': {
    status: 503,
    title: 'The database is not available',
    detail:
      'The database cannot be reached, takes no writes, or is too busy with the same data. Nothing was changed; try again later.',
  },
  'upstream-unavailable': {
    status: 503,
    title: 'The service that knows cannot be asked',
    detail:
      'The message broker is away, nobody answers there, the service could not answer, or too many wait for its answer already. Try again later.',
  },
  'upstream-timeout': {
    status: 504,
    title: 'The service that knows did not answer in time',
    detail: 'The question has expired and will not be answered. Ask again.',
  },
  'outcome-unknown': {
    status: 503,
    title: 'Whether the change took effect is not known',
    detail:
      'The connection to the database broke while the change was being committed, so it may have taken effect or not. ' +
      'Send the same request again, with the same Idempotency-Key if it had one: with a key it takes effect once and is answered ' +
      'as if nothing had broken. Without one, if it did take effect, the answer is 409 to a POST (its e-mail address is taken) and ' +
      '412 to a PATCH (the version has moved on).',
  },
} as const satisfies Record<string, { status: number; title: string; detail: string }>;

export type ProblemName = keyof typeof problems;

export const problemSchema = z
  .object({
    type: z.string().describe(`Stable name of the problem, ${URN}<name>. Branch on this.`),
    title: z.string().describe('The same for every problem of this type.'),
    status: z.int().min(400).max(599).describe('The status of the response.'),
    detail: z.string().describe('What happened this time and what to do, for people.'),
    errors: z
      .array(
        z.object({
          pointer: z.string().describe('JSON pointer of the field in the body, as a URI fragment.'),
          field: z.string().describe('Name of the field; empty for the body itself.'),
          message: z.string(),
        }),
      )
      .optional()
      .describe('One entry for each field that is not valid.'),
  })
  .describe('RFC 9457 problem details.');

export type ProblemDetails = z.output<typeof problemSchema>;

export interface ProblemOptions extends ErrorOptions {
  readonly detail?: string;
  readonly errors?: NonNullable<ProblemDetails['errors']>;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Thrown by whatever finds a reason not to answer as asked; the error handler of the app makes the response of it. */
export class Problem extends Error {
  override readonly name = 'Problem';
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: ProblemDetails;

  constructor(name: ProblemName, { detail = problems[name].detail, errors, headers = {}, cause }: ProblemOptions = {}) {
    super(detail, { cause });
    const { status, title } = problems[name];
    this.status = status;
    this.headers = headers;
    this.body = { type: typeOf(name), title, status, detail, ...(errors === undefined ? {} : { errors }) };
  }
}
