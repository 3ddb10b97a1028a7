import { amqpUrls, databaseUrl, integer, logSettings, port } from '@oncebox/service';
import { z } from 'zod';

const delays = z
  .string()
  .transform((text) => text.split(',').map((part) => part.trim()))
  .refine((parts) => parts.every((part) => /^[1-9]\d{0,8}$/.test(part)), {
    error: 'must read 1000,5000,30000: milliseconds before each further attempt',
  })
  .transform((parts) => parts.map(Number));

export const workerConfig = z.object({
  WORKER_DATABASE_URL: databaseUrl(),
  AMQP_URL: amqpUrls(),
  WORKER_OPS_PORT: port(3102),
  /** Most messages in hand, for each consumer. */
  WORKER_PREFETCH: integer(1, 2_000, 100),
  /** Instead of what each consumer's definition says, for all of them. */
  WORKER_RETRY_DELAYS_MS: delays.optional(),
  /** The same for the handler's deadline; 0 leaves each consumer its own. */
  WORKER_DEADLINE_MS: integer(0, 1_500_000, 0),
  /** How long ids of processed messages are kept. */
  WORKER_RETENTION_HOURS: integer(1, 87_600, 168),
  ...logSettings,
});
