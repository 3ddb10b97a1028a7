import { databaseUrl, integer, logSettings, port } from '@oncebox/service';
import { z } from 'zod';

export const config = z.object({
  API_DATABASE_URL: databaseUrl(),
  API_PORT: port(3000),
  API_OPS_PORT: port(3100),
  /** How long a repetition of a request is recognised by its Idempotency-Key. */
  API_IDEMPOTENCY_HOURS: integer(1, 24 * 365, 24),
  ...logSettings,
});
