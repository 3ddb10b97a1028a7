import { inActiveTrace, type Lineage } from '@oncebox/message';
import type { RequestHandler, Response } from 'express';
import { v7 as uuidv7 } from 'uuid';

/** What a request hands on to the messages it causes and to the log. */
export interface RequestLineage extends Lineage {
  readonly correlationId: string;
}

/** Visible ASCII: it goes into a header, a log and a message, and must be able to break none of them. */
const CORRELATION_ID = /^[\x21-\x7e]{1,128}$/;
/** W3C trace context, version 00. All zeros is no id. */
const TRACEPARENT = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;

const lineages = new WeakMap<Response, RequestLineage>();

/**
 * Takes the caller's X-Correlation-Id and traceparent where they are well formed, and makes the first where it is not: a wrong
 * header of this kind is no reason to refuse a customer. The response says which id it came to be. With tracing on, the request's
 * own span takes the place of the caller's.
 */
export const readLineage: RequestHandler = (request, response, next) => {
  const given = request.get('x-correlation-id') ?? '';
  const correlationId = CORRELATION_ID.test(given) ? given : uuidv7();
  const traceparent = request.get('traceparent') ?? '';
  const lineage = { correlationId, ...(TRACEPARENT.test(traceparent) ? { traceparent } : {}) };
  lineages.set(response, inActiveTrace({ lineage }).lineage);
  response.set('x-correlation-id', correlationId);
  next();
};

/** Of a response that `readLineage` has seen, which it does with all of them first. */
export function lineageOf(response: Response): RequestLineage {
  const lineage = lineages.get(response);
  if (lineage === undefined) throw new Error('readLineage must be the first handler of the app');
  return lineage;
}
