import { createServer } from 'node:http';
import { createPool, parseDatabaseUrl } from '@oncebox/mysql';
import { createLogger, listen, loadConfig, run, startOpsServer, waitFor } from '@oncebox/service';
import { createApp } from './app.ts';
import { config } from './config.ts';
import { forgetKeys } from './idempotency/retention.ts';

const CONNECTIONS = 16;
/** A client gets this long to send a whole request. What it asks for has its own limit, the transaction's. */
const TIMEOUTS = { headersTimeout: 10_000, requestTimeout: 30_000 };

const { API_DATABASE_URL, API_PORT, API_OPS_PORT, API_IDEMPOTENCY_HOURS, LOG_LEVEL, LOG_FORMAT } = loadConfig(config);
const logger = createLogger({ name: 'api', level: LOG_LEVEL, format: LOG_FORMAT });

await run({ logger }, async (stopping) => {
  const pool = createPool(API_DATABASE_URL, { connections: CONNECTIONS });
  const database = () => pool.query('SELECT 1');
  const ops = await startOpsServer({ port: API_OPS_PORT, checks: { database }, logger, stopping });
  const http = await listen(createServer(TIMEOUTS, createApp({ pool, logger })), { port: API_PORT });
  logger.info(`Listening on port ${http.port}, with the documentation at /docs; probes on port ${ops.port}`);

  // Not awaited: without its database the api answers 503 and says why, which tells more than a refused connection.
  const { host, port } = parseDatabaseUrl(API_DATABASE_URL);
  const forgetting = waitFor(`database ${host}:${port}`, database, { logger, signal: stopping }).then(
    () => forgetKeys(pool, { keepHours: API_IDEMPOTENCY_HOURS, logger, signal: stopping }),
    (reason) => logger.debug({ err: reason }, 'No longer waiting for the database'),
  );

  return [
    { name: 'http server', stop: http.close },
    { name: 'retention', stop: () => forgetting },
    { name: 'database pool', stop: () => pool.end() },
    { name: 'ops server', stop: ops.close },
  ];
});
