import { AsyncLocalStorage } from 'node:async_hooks';
import type { Logger } from '@oncebox/service';
import type { Request, RequestHandler, Response } from 'express';
import { lineageOf } from './lineage.ts';

const failures = new WeakMap<Response, unknown>();

/** Puts an error into the request's one log line. */
export const noteFailure = (response: Response, error: unknown): void => {
  failures.set(response, error);
};

export const failureOf = (response: Response): unknown => failures.get(response);

/** The path by its template, `/customers/:id`; nothing for a request that no route has taken. */
export function routeOf(request: Request): string | undefined {
  const route: unknown = request.route?.path;
  return typeof route === 'string' ? route : undefined;
}

/**
 * One line for each request, when its response is over. The path by its template and nothing of the body: what clients send is
 * personal data.
 */
export const logRequests =
  (logger: Logger): RequestHandler =>
  (request, response, next) => {
    const started = performance.now();
    // In the request's context, for its span: the event comes from the socket, which belongs to no request.
    const log = AsyncLocalStorage.bind(() => {
      const { method } = request;
      const path = routeOf(request) ?? '(no route)';
      const status = response.statusCode;
      const ms = Math.round(performance.now() - started);
      const fields = { method, path, status, ms, ...lineageOf(response) };
      if (!response.writableFinished)
        return logger.warn(fields, `${method} ${path} aborted by the client after ${ms} ms`);
      const err = failureOf(response);
      const level = status === 500 ? 'error' : status > 500 ? 'warn' : 'info';
      logger[level](err === undefined ? fields : { ...fields, err }, `${method} ${path} ${status} ${ms} ms`);
    });
    response.once('close', log);
    next();
  };
