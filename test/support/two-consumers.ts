import { createInbox, defineConsumer, on } from '@oncebox/inbox';
import { createPool } from '@oncebox/mysql';
import { connectBroker, startConsumer } from '@oncebox/rabbitmq';
import { amqpUrls, createLogger, databaseUrl, loadConfig, run } from '@oncebox/service';
import { z } from 'zod';
import { Stepped } from './ordered.ts';
import { CRASHED } from './poison.ts';

/**
 * A program under test: two consumers in one process. The walk `poison` ends the process, and the
 * first step of the walk `slow` takes a second.
 */

const config = loadConfig(
  z.object({
    WORKER_DATABASE_URL: databaseUrl(),
    AMQP_URL: amqpUrls(),
    POISONED: z.string(),
    HEALTHY: z.string(),
    /** Which of the two are ordered: `poisoned`, `healthy`, both or neither. */
    ORDERED: z.string(),
    DELIVERY_LIMIT: z.coerce.number(),
  }),
);
const logger = createLogger({ name: 'two', level: 'info', format: 'json' });

const steps = (name: string, role: string) =>
  defineConsumer({
    name,
    ordered: config.ORDERED.includes(role),
    // One message a transaction: the others of a batch would wait for the slow one.
    batch: 1,
    handlers: [
      on(Stepped, {
        async handle(tx, { id, payload: { walk, n } }) {
          if (walk === 'slow' && n === 0) await tx.query('SELECT SLEEP(1)');
          if (walk === 'poison') {
            // Long enough for the other consumer to be in the middle of a message.
            await tx.query('SELECT SLEEP(0.5)');
            process.exit(CRASHED);
          }
          await tx.execute('INSERT INTO steps (message_id, walk, n) VALUES (?, ?, ?)', [id, walk, n]);
        },
      }),
    ],
  });

await run({ logger }, async () => {
  const pool = createPool(config.WORKER_DATABASE_URL, { connections: 10 });
  const broker = connectBroker({ urls: config.AMQP_URL, name: 'two', logger });
  const consumers = [steps(config.POISONED, 'poisoned'), steps(config.HEALTHY, 'healthy')].map((definition) => {
    const inbox = createInbox(pool, definition);
    return startConsumer({ broker, inbox, logger, prefetch: 20, deliveryLimit: config.DELIVERY_LIMIT });
  });
  const reporting = setInterval(() => {
    if (!consumers.every(({ consuming }) => consuming)) return;
    logger.info('both consume');
    clearInterval(reporting);
  }, 20);
  return [
    { name: 'report', stop: () => clearInterval(reporting) },
    { name: 'consumers', stop: () => Promise.all(consumers.map((consumer) => consumer.stop())) },
    { name: 'broker', stop: () => broker.close() },
    { name: 'database', stop: () => pool.end() },
  ];
});
