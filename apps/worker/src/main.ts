import { type Consumer, createInbox, forgetProcessed, type Inbox } from '@oncebox/inbox';
import { createPool, parseDatabaseUrl } from '@oncebox/mysql';
import { connectBroker, startConsumer } from '@oncebox/rabbitmq';
import { createLogger, loadConfig, run, startOpsServer } from '@oncebox/service';
import { workerConfig } from './config.ts';
import { customerDirectory } from './customer-directory.ts';
import { welcomeEmail } from './welcome-email.ts';

/** Fewer than the messages in hand: their transactions are short, and a database shared by many workers has connections to spare. */
const CONNECTIONS = 20;

const config = loadConfig(workerConfig);
const logger = createLogger({ name: 'worker', level: config.LOG_LEVEL, format: config.LOG_FORMAT });

/** A consumer as its definition has it, but for what the environment says about all of them. */
const configured = (consumer: Consumer): Consumer => ({
  ...consumer,
  retryDelaysMs: config.WORKER_RETRY_DELAYS_MS ?? consumer.retryDelaysMs,
  deadlineMs: config.WORKER_DEADLINE_MS || consumer.deadlineMs,
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
  const pool = createPool(config.WORKER_DATABASE_URL, { connections: CONNECTIONS });
  const { host, port } = parseDatabaseUrl(config.WORKER_DATABASE_URL);
  const broker = connectBroker({ urls: config.AMQP_URL, name: 'worker', logger });
  const consumers = [welcomeEmail, customerDirectory].map((definition) =>
    startConsumer({
      broker,
      inbox: announced(createInbox(pool, configured(definition))),
      logger,
      dependency: `database ${host}:${port}`,
      prefetch: config.WORKER_PREFETCH,
    }),
  );
  const forgetting = forgetProcessed(pool, { keepHours: config.WORKER_RETENTION_HOURS, logger, signal: stopping });

  const ops = await startOpsServer({
    port: config.WORKER_OPS_PORT,
    logger,
    stopping,
    checks: {
      database: () => pool.query('SELECT 1'),
      consumers: () => {
        if (consumers.some((consumer) => !consumer.consuming))
          throw Object.assign(new Error('no messages are consumed'), { code: 'NOT_CONSUMING' });
      },
    },
  });
  logger.info(`Probes on port ${ops.port}`);
  return [
    { name: 'consumers', stop: () => Promise.all(consumers.map((consumer) => consumer.stop())) },
    { name: 'broker', stop: () => broker.close() },
    { name: 'retention', stop: () => forgetting },
    { name: 'database', stop: () => pool.end() },
    { name: 'ops server', stop: () => ops.close() },
  ];
});
