import { classOf, isTracing } from '@oncebox/message';
import { context, propagation, ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import type { RequestHandler, Response } from 'express';
import { failureOf, routeOf } from './request-log.ts';

const tracer = trace.getTracer('@oncebox/api');

/**
 * Answers each request in a span that continues the caller's trace. Of the request it says what the log says, the route and never the
 * path: what clients send is personal data.
 */
export const traceRequests: RequestHandler = (request, response, next) => {
  if (!isTracing()) return next();
  const parent = propagation.extract(ROOT_CONTEXT, request.headers);
  const attributes = { 'http.request.method': request.method, 'url.scheme': request.protocol };
  const span = tracer.startSpan(request.method, { kind: SpanKind.SERVER, attributes }, parent);
  response.once('close', () => {
    const route = routeOf(request);
    // Only now is it known.
    if (route !== undefined) span.updateName(`${request.method} ${route}`).setAttribute('http.route', route);
    if (response.writableFinished) span.setAttribute('http.response.status_code', response.statusCode);
    const error = errorOf(response);
    if (error !== undefined) span.setAttribute('error.type', error).setStatus({ code: SpanStatusCode.ERROR });
    span.end();
  });
  context.with(trace.setSpan(parent, span), next);
};

/** Why a request has no good answer; one that was refused has. */
function errorOf(response: Response): string | undefined {
  if (!response.writableFinished) return 'aborted';
  if (response.statusCode < 500) return undefined;
  const failure = failureOf(response);
  return failure instanceof Error ? classOf(failure) : String(response.statusCode);
}
