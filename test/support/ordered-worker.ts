import { createInbox, defineConsumer, on } from '@oncebox/inbox';
import { createPool } from '@oncebox/mysql';
import { connectBroker, startConsumer } from '@oncebox/rabbitmq';
import { amqpUrls, createLogger, databaseUrl, loadConfig, run } from '@oncebox/service';
import { z } from 'zod';
import { Stepped } from './ordered.ts';

/** A program under test: an ordered consumer whose handler fails at random, after its effect. */

const config = loadConfig(
  z.object({ WORKER_DATABASE_URL: databaseUrl(), AMQP_URL: amqpUrls(), FAILS: z.coerce.number().default(0) }),
);
const logger = createLogger({ name: 'ordered', level: 'info', format: 'json' });

const steps = defineConsumer({
  name: 'steps',
  ordered: true,
  retryDelaysMs: Array(100).fill(50),
  handlers: [
    on(Stepped, {
      async handle(tx, { id, payload: { walk, n } }) {
        await tx.execute('INSERT INTO steps (message_id, walk, n) VALUES (?, ?, ?)', [id, walk, n]);
        if (Math.random() < config.FAILS) throw new Error('a stumble');
      },
    }),
  ],
});

await run({ logger }, async () => {
  const pool = createPool(config.WORKER_DATABASE_URL, { connections: 10 });
  const broker = connectBroker({ urls: config.AMQP_URL, name: 'ordered', logger });
  const consumer = startConsumer({ broker, inbox: createInbox(pool, steps), logger, prefetch: 50 });
  return [
    { name: 'consumer', stop: () => consumer.stop() },
    { name: 'broker', stop: () => broker.close() },
    { name: 'database', stop: () => pool.end() },
  ];
});
