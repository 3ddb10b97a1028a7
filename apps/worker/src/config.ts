import { amqpUrls, databaseUrl, integer, logSettings, port } from '@oncebox/service';
import { z } from 'zod';

export const workerConfig = z.object({
  WORKER_DATABASE_URL: databaseUrl(),
  AMQP_URL: amqpUrls(),
  WORKER_OPS_PORT: port(3102),
  /** Most messages in hand, for each consumer. */
  WORKER_PREFETCH: integer(1, 2_000, 100),
  ...logSettings,
});
