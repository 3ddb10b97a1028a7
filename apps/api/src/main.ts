import { createServer } from 'node:http';
import { readRebuilds } from '@oncebox/event-store';
import {
  countDeadLetters,
  createInbox,
  forgetDeadLetters,
  forgetProcessed,
  oldestHandledLetterSeconds,
  PROCESSED_MESSAGES,
  readProblems,
} from '@oncebox/inbox';
import {
  createMetrics,
  deadLetterSamples,
  keepReading,
  problemSamples,
  rebuildSamples,
  retentionSample,
} from '@oncebox/metrics';
import { assertSuitable, createPool, keepDeleting, oldestSeconds, parseDatabaseUrl } from '@oncebox/mysql';
import { connectBroker, createRequester, startConsumer } from '@oncebox/rabbitmq';
import { createLogger, listen, loadConfig, run, type StopStep, startOpsServer, waitFor } from '@oncebox/service';
import { createApp } from './app.ts';
import { config } from './config.ts';
import { IDEMPOTENCY_KEYS } from './idempotency/store.ts';
import { ordersConsumer } from './orders/consumer.ts';

const CONNECTIONS = 16;
/** For a read without a transaction. Whoever waits for the answer has given up by then. */
const STATEMENT_MS = 10_000;
/** For the statement of a readiness probe. */
const PROBE_MS = 1_000;
/** Of its own, so that a queue that has grown while the api was away takes no connection from the requests. */
const CONSUMER_CONNECTIONS = 4;
/** Where the count of dead letters ends. */
const COUNTED = 10_000;
/** A client gets this long to send a whole request. What it asks for has its own limit, the transaction's. */
const TIMEOUTS = { headersTimeout: 10_000, requestTimeout: 30_000 };

const settings = loadConfig(config);
const { API_DATABASE_URL, API_PORT, API_OPS_PORT, API_IDEMPOTENCY_HOURS } = settings;
const logger = createLogger({ name: 'api', level: settings.LOG_LEVEL, format: settings.LOG_FORMAT });

await run({ logger }, async (stopping) => {
  const metrics = createMetrics();
  const pool = createPool(API_DATABASE_URL, { connections: CONNECTIONS, statementTimeoutMs: STATEMENT_MS });
  const consumerPool = createPool(API_DATABASE_URL, {
    connections: CONSUMER_CONNECTIONS,
    statementTimeoutMs: STATEMENT_MS,
  });
  const database = () => assertSuitable(pool).then(() => pool.query({ sql: 'SELECT 1', timeout: PROBE_MS }));
  // The broker is no check: without it requests are served, and orders wait for what happens to them.
  const ops = await startOpsServer({ port: API_OPS_PORT, checks: { database }, metrics, logger, stopping });
  const requester =
    settings.AMQP_URL === undefined
      ? undefined
      : createRequester({ urls: settings.AMQP_URL, name: 'api requests', logger });
  const app = createApp({ pool, logger, requester, customerCreated: settings.API_CUSTOMER_CREATED_VERSION });
  const http = await listen(createServer(TIMEOUTS, app), { port: API_PORT });
  logger.info(`Listening on port ${http.port}, with the documentation at /docs; probes on port ${ops.port}`);

  if (requester !== undefined) metrics.requests(requester);

  const reading = keepReading(metrics, {
    databaseUrl: API_DATABASE_URL,
    of: 'inbox',
    logger,
    async read(db, schema) {
      const letters = deadLetterSamples(schema, await countDeadLetters(db, COUNTED));
      const rebuilds = rebuildSamples(schema, await readRebuilds(db));
      const processed = await oldestSeconds(db, PROCESSED_MESSAGES);
      const keys = await oldestSeconds(db, IDEMPOTENCY_KEYS);
      const letterHours = settings.API_DEAD_LETTER_RETENTION_HOURS;
      const handled = letterHours === 0 ? null : await oldestHandledLetterSeconds(db);
      return [
        ...letters,
        ...rebuilds,
        ...problemSamples(schema, await readProblems(db)),
        retentionSample(schema, PROCESSED_MESSAGES.table, processed, settings.API_RETENTION_HOURS),
        retentionSample(schema, IDEMPOTENCY_KEYS.table, keys, API_IDEMPOTENCY_HOURS),
        retentionSample(schema, 'dead_letters', handled, letterHours),
      ];
    },
  });

  // Not awaited: without its database the api answers 503 and says why, which tells more than a refused connection.
  const { host, port } = parseDatabaseUrl(API_DATABASE_URL);
  const dependency = `database ${host}:${port}`;
  const forgetting = waitFor(dependency, database, { logger, signal: stopping }).then(
    () =>
      Promise.all([
        keepDeleting(pool, IDEMPOTENCY_KEYS, { keepHours: API_IDEMPOTENCY_HOURS, logger, signal: stopping }),
        forgetProcessed(pool, { keepHours: settings.API_RETENTION_HOURS, logger, signal: stopping }),
        forgetDeadLetters(pool, { keepHours: settings.API_DEAD_LETTER_RETENTION_HOURS, logger, signal: stopping }),
      ]),
    (reason) => logger.debug({ err: reason }, 'No longer waiting for the database'),
  );

  const consuming: StopStep[] = [];
  if (settings.AMQP_URL === undefined) {
    logger.warn(
      'AMQP_URL is not set: orders are taken, what becomes of them is not heard, and availability is not known',
    );
  } else {
    const broker = connectBroker({ urls: settings.AMQP_URL, name: 'api', logger });
    const consumer = startConsumer({ broker, inbox: createInbox(consumerPool, ordersConsumer), logger, dependency });
    metrics.consumers(() => [consumer]);
    consuming.push({ name: 'consumer', stop: () => consumer.stop() }, { name: 'broker', stop: () => broker.close() });
  }

  return [
    // Before the server, which waits for the requests under way: their answers may never come.
    { name: 'requester', stop: () => requester?.close() },
    { name: 'http server', stop: http.close },
    ...consuming,
    { name: 'retention', stop: () => forgetting },
    { name: 'readings', stop: () => reading.stop() },
    { name: 'database pools', stop: () => Promise.all([pool.end(), consumerPool.end()]) },
    { name: 'ops server', stop: ops.close },
  ];
});
