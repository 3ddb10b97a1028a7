import { VersionConflictError } from '@oncebox/event-store';
import { DatabaseError, isContention, isUnavailable } from '@oncebox/mysql';
import type { ErrorRequestHandler, RequestHandler } from 'express';
import { Problem } from './problem.ts';
import { noteFailure } from './request-log.ts';

/** Seconds: an outage of the database is rarely over sooner, and nothing is gained by being told a precise lie. */
const RETRY_AFTER = { 'retry-after': '2' };

/** What the client is told of an error; never more than that of one which nobody foresaw. */
export function problemOf(error: unknown): Problem {
  if (error instanceof Problem) return error;
  if (error instanceof VersionConflictError) return new Problem('version-conflict', { cause: error });
  if (error instanceof DatabaseError && error.code === 'ONCEBOX_COMMIT_UNKNOWN') {
    return new Problem('outcome-unknown', { cause: error, headers: RETRY_AFTER });
  }
  // Contention reaches this place only after transaction() has retried it.
  if (isUnavailable(error) || isContention(error)) {
    return new Problem('database-unavailable', { cause: error, headers: RETRY_AFTER });
  }
  return rejectedByExpress(error) ?? new Problem('internal-error', { cause: error });
}

/**
 * What Express and its body parser throw has a `status`. It does not become the cause: it may carry the body, which is
 * personal data.
 */
function rejectedByExpress(error: unknown): Problem | undefined {
  if (!(error instanceof Error)) return undefined;
  switch (Reflect.get(error, 'status')) {
    case 400:
      return new Problem('malformed-request');
    case 413:
      return new Problem('body-too-large');
    case 415:
      return new Problem('unsupported-media-type');
    default:
      return undefined;
  }
}

export const noRoute: RequestHandler = () => {
  throw new Problem('no-such-resource');
};

/** For a path that exists, after its own methods. */
export const notAllowed =
  (...methods: readonly string[]): RequestHandler =>
  () => {
    const allow = methods.join(', ');
    throw new Problem('method-not-allowed', { detail: `This resource has ${allow}.`, headers: { allow } });
  };

// Express knows an error handler by its four parameters.
export const errorHandler: ErrorRequestHandler = (error: unknown, _request, response, next) => {
  const problem = problemOf(error);
  if (problem.status >= 500) noteFailure(response, problem.cause);
  // Too late for another status: Express breaks the connection, which is how the client learns that the answer is not whole.
  if (response.headersSent) return next(error);
  response
    .status(problem.status)
    .set(problem.headers)
    .type('application/problem+json')
    .send(JSON.stringify(problem.body));
};
