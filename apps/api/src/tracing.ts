import { classOf, isTracing } from '@oncebox/message';
import { context, propagation, ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import type { RequestHandler } from 'express';
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
    span.setAttribute('http.response.status_code', response.statusCode);
    if (response.statusCode >= 500) {
      const failure = failureOf(response);
      span.setAttribute('error.type', failure instanceof Error ? classOf(failure) : String(response.statusCode));
      span.setStatus({ code: SpanStatusCode.ERROR });
    }
    span.end();
  });
  context.with(trace.setSpan(parent, span), next);
};
