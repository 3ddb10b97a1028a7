import { CheckAvailability } from '@oncebox/contracts';
import { BrokerError, type Requester } from '@oncebox/rabbitmq';
import { Router } from 'express';
import { parseBody } from '../body.ts';
import { notAllowed } from '../error-handler.ts';
import { lineageOf } from '../lineage.ts';
import { Problem } from '../problem.ts';
import { type Availability, availabilityQuery } from './schemas.ts';

/** Milliseconds that the client is kept waiting. */
const TIMEOUT_MS = 2_000;
/** Above the 0 of whoever asks for many: here a person waits. */
const PRIORITY = 4;
/** Seconds. */
const RETRY_AFTER = { 'retry-after': '2' };

/** @param requester none where the api has no broker: this is the one resource that needs it. */
export function availabilityRoutes(requester: Requester | undefined): Router {
  const routes = Router();
  routes
    .route('/availability')
    .get(async (request, response) => {
      const question = parseBody(availabilityQuery, request.query);
      if (requester === undefined) throw new Problem('upstream-unavailable', { headers: RETRY_AFTER });
      const { answer, processingMs } = await requester
        .request(CheckAvailability, question, {
          timeoutMs: TIMEOUT_MS,
          priority: PRIORITY,
          lineage: lineageOf(response),
        })
        .catch((error: unknown) => {
          throw problemOf(error);
        });
      const body: Availability = { ...answer, processingMs };
      response.set('cache-control', 'no-store').json(body);
    })
    .all(notAllowed('GET', 'HEAD'));
  return routes;
}

function problemOf(error: unknown): unknown {
  if (!(error instanceof BrokerError)) return error;
  if (error.code === 'ONCEBOX_REQUEST_TIMED_OUT') return new Problem('upstream-timeout', { cause: error });
  return new Problem('upstream-unavailable', { cause: error, headers: RETRY_AFTER });
}
