import { amqpUrls, databaseUrls, flag, integer, logSettings, port } from '@oncebox/service';
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
  /** Whether what is published is kept in the log as well, for `oncebox replay`; and what the log keeps of it. */
  RELAY_LOG: flag(false),
  RELAY_LOG_HOURS: integer(1, 24 * 3_650, 720),
  RELAY_LOG_BYTES: integer(1_000_000, 10 ** 14, 10 ** 10),
  /** The broker forgets whole segments, when it begins another. */
  RELAY_LOG_SEGMENT_BYTES: integer(1_000_000, 3 * 10 ** 9, 10 ** 8),
  ...logSettings,
});
