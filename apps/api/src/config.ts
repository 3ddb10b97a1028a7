import { amqpUrls, databaseUrl, integer, logSettings, port } from '@oncebox/service';
import { z } from 'zod';

export const config = z.object({
  API_DATABASE_URL: databaseUrl(),
  /** For what others say of orders, and to ask them. Without it orders are taken and stay as they were placed, and /availability is 503. */
  AMQP_URL: amqpUrls().optional(),
  API_PORT: port(3000),
  API_OPS_PORT: port(3100),
  /** How long a repetition of a request is recognised by its Idempotency-Key. */
  API_IDEMPOTENCY_HOURS: integer(1, 24 * 365, 24),
  /** How long ids of processed messages are kept. */
  API_RETENTION_HOURS: integer(1, 87_600, 168),
  /** As WORKER_DEAD_LETTER_RETENTION_HOURS. */
  API_DEAD_LETTER_RETENTION_HOURS: integer(0, 87_600, 720),
  /** The version of CustomerCreated to write; 2 when every worker that is running reads it. */
  API_CUSTOMER_CREATED_VERSION: z
    .enum(['1', '2'], { error: 'must be 1 or 2' })
    .default('1')
    .transform((text) => (text === '1' ? 1 : 2)),
  ...logSettings,
});
