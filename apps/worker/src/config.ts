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
  /** Of the api, which has the orders. Without it, the api is on this host, at its own port. */
  ORDERS_API_URL: z.url({ protocol: /^https?$/, error: 'must read http://host:port' }).optional(),
  API_PORT: port(3000),
  /** Most messages in hand, for each consumer: two batches that are handled, and the next two. */
  WORKER_PREFETCH: integer(1, 2_000, 400),
  /** Most messages that share a transaction, where a consumer's definition does not say fewer; 1 gives each its own. */
  WORKER_BATCH: integer(1, 1_000, 100),
  /** Instead of what each consumer's definition says, for all of them. */
  WORKER_RETRY_DELAYS_MS: delays.optional(),
  /** The same for the handler's deadline; 0 leaves each consumer its own. */
  WORKER_DEADLINE_MS: integer(0, 1_500_000, 0),
  /** Until a command of a saga that was not answered is sent again; each further wait is twice as long. */
  WORKER_STEP_TIMEOUT_MS: integer(1, 86_400_000, 30_000),
  /** How long ids of processed messages are kept, and sagas that have ended. */
  WORKER_RETENTION_HOURS: integer(1, 87_600, 168),
  /** How long dead letters are kept that were replayed or discarded; 0 for ever. */
  WORKER_DEAD_LETTER_RETENTION_HOURS: integer(0, 87_600, 720),
  ...logSettings,
});
