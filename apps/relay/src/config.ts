import { amqpUrls, databaseUrls, integer, logSettings, port } from '@oncebox/service';
import { z } from 'zod';

export const relayConfig = z.object({
  RELAY_DATABASE_URLS: databaseUrls(),
  AMQP_URL: amqpUrls(),
  RELAY_OPS_PORT: port(3101),
  /** Passes side by side, for each schema. */
  RELAY_LANES: integer(1, 16, 2),
  /** Most rows of one pass. */
  RELAY_BATCH: integer(1, 10_000, 1_000),
  /** Milliseconds between two looks while there is nothing to do. */
  RELAY_POLL_MS: integer(1, 60_000, 20),
  RELAY_RETENTION_HOURS: integer(0, 24 * 365, 24),
  /** How long a frozen relay keeps what it has claimed, and two more than a pass may take. */
  RELAY_LEASE_SECONDS: integer(4, 600, 30),
  ...logSettings,
});
