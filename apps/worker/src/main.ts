import { CheckAvailability } from '@oncebox/contracts';
import {
  type Consumer,
  countDeadLetters,
  createInbox,
  forgetDeadLetters,
  forgetProcessed,
  type Inbox,
  oldestHandledLetterSeconds,
  PROCESSED_MESSAGES,
  readProblems,
} from '@oncebox/inbox';
import {
  createMetrics,
  deadLetterSamples,
  keepReading,
  problemSamples,
  retentionSample,
  sagaSamples,
} from '@oncebox/metrics';
import { assertSuitable, createPool, oldestSeconds, parseDatabaseUrl } from '@oncebox/mysql';
import { connectBroker, startConsumer, startResponder } from '@oncebox/rabbitmq';
import { countSagas, forgetSagas, SAGAS, watchTimeouts } from '@oncebox/saga';
import { createLogger, loadConfig, run, startOpsServer } from '@oncebox/service';
import { workerConfig } from './config.ts';
import { customerDirectory } from './customer-directory.ts';
import { availability } from './inventory/availability.ts';
import { inventory } from './inventory/consumer.ts';
import { orderEmails } from './order-emails/consumer.ts';
import { ordersApi } from './order-emails/orders-api.ts';
import { orderFulfilment, orderFulfilmentConsumer } from './order-fulfilment.ts';
import { payments } from './payments/consumer.ts';
import { simulatedGateway } from './payments/simulated-gateway.ts';
import { sales } from './sales.ts';
import { welcomeEmail } from './welcome-email.ts';

/** Fewer than the messages in hand: their transactions are short, and a database shared by many workers has connections to spare. */
const CONNECTIONS = 20;
const GATEWAY_CONNECTIONS = 5;
/** For a statement without a transaction. */
const STATEMENT_MS = 10_000;
/** For the statement of a readiness probe. */
const PROBE_MS = 1_000;
/** Where the counts of dead letters and sagas end. */
const COUNTED = 10_000;

const config = loadConfig(workerConfig);
const logger = createLogger({ name: 'worker', level: config.LOG_LEVEL, format: config.LOG_FORMAT });

/** A consumer as its definition has it, but for what the environment says about all of them. */
const configured = (consumer: Consumer): Consumer => ({
  ...consumer,
  retryDelaysMs: config.WORKER_RETRY_DELAYS_MS ?? consumer.retryDelaysMs,
  deadlineMs: config.WORKER_DEADLINE_MS || consumer.deadlineMs,
  batch: Math.min(config.WORKER_BATCH, consumer.batch),
});

/** Logs each message before it is handled. */
const announced = (inbox: Inbox): Inbox => ({
  ...inbox,
  process(message) {
    const { id, type, payload, lineage } = message;
    const { correlationId, traceparent } = lineage;
    // The payload is the one place where a log may show personal data, and only where LOG_PAYLOADS says so.
    logger.info(
      { consumer: inbox.name, messageId: id, correlationId, traceparent },
      `Handling [${type}] - Payload: '${config.LOG_PAYLOADS ? payload : '[hidden]'}'`,
    );
    return inbox.process(message);
  },
});

await run({ logger }, async (stopping) => {
  const metrics = createMetrics();
  const pool = createPool(config.WORKER_DATABASE_URL, {
    connections: CONNECTIONS,
    statementTimeoutMs: STATEMENT_MS,
  });
  const { host, port } = parseDatabaseUrl(config.WORKER_DATABASE_URL);
  const broker = connectBroker({ urls: config.AMQP_URL, name: 'worker', logger });
  // The gateway stands for another company's system: it has connections of its own, and no transaction of ours.
  const gatewayPool = createPool(config.WORKER_DATABASE_URL, {
    connections: GATEWAY_CONNECTIONS,
    statementTimeoutMs: STATEMENT_MS,
  });
  const saga = orderFulfilment(config.WORKER_STEP_TIMEOUT_MS);
  const consumers = [
    welcomeEmail,
    customerDirectory,
    inventory,
    payments(pool, simulatedGateway(gatewayPool)),
    orderFulfilmentConsumer(saga),
    orderEmails(ordersApi(config.ORDERS_API_URL ?? `http://127.0.0.1:${config.API_PORT}`)),
    sales,
  ].map((definition) =>
    startConsumer({
      broker,
      inbox: announced(createInbox(pool, configured(definition))),
      logger,
      dependency: `database ${host}:${port}`,
      prefetch: config.WORKER_PREFETCH,
    }),
  );
  const responder = startResponder({ broker, contract: CheckAvailability, answer: availability(pool), logger });
  const watching = watchTimeouts(pool, [saga], { logger, signal: stopping });
  const retention = { keepHours: config.WORKER_RETENTION_HOURS, logger, signal: stopping };
  const letterHours = config.WORKER_DEAD_LETTER_RETENTION_HOURS;
  const forgetting = Promise.all([
    forgetProcessed(pool, retention),
    forgetSagas(pool, retention),
    forgetDeadLetters(pool, { ...retention, keepHours: letterHours }),
  ]);

  metrics.consumers(() => consumers);
  const reading = keepReading(metrics, {
    databaseUrl: config.WORKER_DATABASE_URL,
    of: 'inbox',
    logger,
    async read(db, schema) {
      const letters = deadLetterSamples(schema, await countDeadLetters(db, COUNTED));
      const sagas = sagaSamples(schema, await countSagas(db, COUNTED));
      const kept = await Promise.all(
        [PROCESSED_MESSAGES, SAGAS].map(async (retained) =>
          retentionSample(schema, retained.table, await oldestSeconds(db, retained), config.WORKER_RETENTION_HOURS),
        ),
      );
      // Kept for ever, they are never overdue.
      const handled = letterHours === 0 ? null : await oldestHandledLetterSeconds(db);
      const problems = problemSamples(schema, await readProblems(db));
      return [
        ...letters,
        ...sagas,
        ...problems,
        ...kept,
        retentionSample(schema, 'dead_letters', handled, letterHours),
      ];
    },
  });

  const ops = await startOpsServer({
    port: config.WORKER_OPS_PORT,
    logger,
    stopping,
    metrics,
    checks: {
      database: () => assertSuitable(pool).then(() => pool.query({ sql: 'SELECT 1', timeout: PROBE_MS })),
      broker: () => {
        const state = broker.consuming.state();
        if (state !== 'connected') throw Object.assign(new Error('no broker'), { code: state.toUpperCase() });
      },
      consumers: () => {
        if ([...consumers, responder].some(({ consuming }) => !consuming))
          throw Object.assign(new Error('no messages are consumed'), { code: 'NOT_CONSUMING' });
      },
    },
  });
  logger.info(`Probes on port ${ops.port}`);
  return [
    { name: 'consumers', stop: () => Promise.all([...consumers, responder].map((each) => each.stop())) },
    { name: 'broker', stop: () => broker.close() },
    { name: 'time-outs of sagas', stop: () => watching },
    { name: 'retention', stop: () => forgetting },
    { name: 'readings', stop: () => reading.stop() },
    { name: 'database', stop: () => Promise.all([pool.end(), gatewayPool.end()]) },
    { name: 'ops server', stop: () => ops.close() },
  ];
});
