import type { Pool } from '@oncebox/mysql';
import type { Requester } from '@oncebox/rabbitmq';
import type { Logger } from '@oncebox/service';
import express, { type Express } from 'express';
import { availabilityRoutes } from './availability/routes.ts';
import type { CreatedVersion } from './customers/announcement.ts';
import { customerRoutes } from './customers/routes.ts';
import { docsRoutes } from './docs/routes.ts';
import { errorHandler, noRoute } from './error-handler.ts';
import { readLineage } from './lineage.ts';
import { orderRoutes } from './orders/routes.ts';
import { logRequests } from './request-log.ts';
import { traceRequests } from './tracing.ts';

export interface AppSettings {
  readonly pool: Pool;
  readonly logger: Logger;
  /** Asks other services; without it, what takes another service is not available. */
  readonly requester?: Requester | undefined;
  /** Default 1. */
  readonly customerCreated?: CreatedVersion;
}

export function createApp({ pool, logger, requester, customerCreated = 1 }: AppSettings): Express {
  const app = express();
  app.disable('x-powered-by');
  // An ETag is the version of a customer here, never a hash that Express makes of a body.
  app.disable('etag');
  app.use(traceRequests, readLineage, logRequests(logger), (_request, response, next) => {
    response.set('x-content-type-options', 'nosniff');
    next();
  });
  app.use(customerRoutes(pool, customerCreated), orderRoutes(pool), availabilityRoutes(requester), docsRoutes());
  app.use(noRoute, errorHandler);
  return app;
}
