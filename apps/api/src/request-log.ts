import type { Logger } from '@oncebox/service';
import type { RequestHandler, Response } from 'express';
import { lineageOf } from './lineage.ts';

const failures = new WeakMap<Response, unknown>();

/** Puts an error into the request's one log line. */
export const noteFailure = (response: Response, error: unknown): void => {
  failures.set(response, error);
};

/**
 * One line for each request, when its response is over. The path by its template and nothing of the body: what clients send is
 * personal data.
 */
export const logRequests =
  (logger: Logger): RequestHandler =>
  (request, response, next) => {
    const started = performance.now();
    response.once('close', () => {
      const { method } = request;
      const route: unknown = request.route?.path;
      const path = typeof route === 'string' ? route : '(no route)';
      const status = response.statusCode;
      const ms = Math.round(performance.now() - started);
      const fields = { method, path, status, ms, ...lineageOf(response) };
      if (!response.writableFinished)
        return logger.warn(fields, `${method} ${path} aborted by the client after ${ms} ms`);
      const err = failures.get(response);
      const level = status === 500 ? 'error' : status > 500 ? 'warn' : 'info';
      logger[level](err === undefined ? fields : { ...fields, err }, `${method} ${path} ${status} ${ms} ms`);
    });
    next();
  };
