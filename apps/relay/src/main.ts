import { createMetrics, keepReading, outboxSamples, retentionSample } from '@oncebox/metrics';
import { parseDatabaseUrl } from '@oncebox/mysql';
import { createRelay, readOutbox } from '@oncebox/outbox';
import { createPublisher } from '@oncebox/rabbitmq';
import { createLogger, loadConfig, run, startOpsServer } from '@oncebox/service';
import { relayConfig } from './config.ts';

const config = loadConfig(relayConfig);
const logger = createLogger({ name: 'relay', level: config.LOG_LEVEL, format: config.LOG_FORMAT });

/** Where counts end: enough to see that something is wrong. */
const COUNTED = 10_000;

await run({ logger }, async (stopping) => {
  const metrics = createMetrics();
  metrics.relay(config.RELAY_DATABASE_URLS.map((url) => parseDatabaseUrl(url).schema));
  const readings = config.RELAY_DATABASE_URLS.map((databaseUrl) => {
    const types = new Set<string>();
    return keepReading(metrics, {
      databaseUrl,
      of: 'outbox',
      logger,
      async read(db, schema) {
        const reading = await readOutbox(db, COUNTED);
        const overdue = retentionSample(schema, 'outbox', reading.oldestPublishedSeconds, config.RELAY_RETENTION_HOURS);
        return [...outboxSamples(schema, reading, types), overdue];
      },
    });
  });
  const log = {
    maxAgeHours: config.RELAY_LOG_HOURS,
    maxBytes: config.RELAY_LOG_BYTES,
    segmentBytes: config.RELAY_LOG_SEGMENT_BYTES,
  };
  const publisher = createPublisher({
    urls: config.AMQP_URL,
    name: 'relay',
    logger,
    ...(config.RELAY_LOG ? { log } : {}),
  });
  const relay = createRelay({
    databaseUrls: config.RELAY_DATABASE_URLS,
    publisher,
    logger,
    lanes: config.RELAY_LANES,
    batch: config.RELAY_BATCH,
    pollMs: config.RELAY_POLL_MS,
    retentionHours: config.RELAY_RETENTION_HOURS,
    leaseSeconds: config.RELAY_LEASE_SECONDS,
  });
  const ops = await startOpsServer({
    port: config.RELAY_OPS_PORT,
    logger,
    stopping,
    metrics,
    checks: {
      database: () => relay.assertDatabases(),
      broker: () => {
        if (!publisher.ready)
          throw Object.assign(new Error('no publishing'), { code: publisher.state().toUpperCase() });
      },
    },
  });
  logger.info(`Probes on port ${ops.port}`);
  relay.start();
  return [
    { name: 'relay', stop: () => relay.stop() },
    // After the relay: what it has in flight is confirmed by then.
    { name: 'publisher', stop: () => publisher.close() },
    { name: 'readings', stop: () => Promise.all(readings.map((reading) => reading.stop())) },
    { name: 'ops server', stop: () => ops.close() },
  ];
});
