import { createInbox, defineConsumer, on } from '@oncebox/inbox';
import { orderedQueues } from '@oncebox/message';
import { createPool, type Pool, transaction } from '@oncebox/mysql';
import { createRelay, outbox, type Relay } from '@oncebox/outbox';
import { type Consumer, connectBroker, createPublisher, type Logger, startConsumer } from '@oncebox/rabbitmq';
import type { RowDataPacket } from 'mysql2/promise';
import { beforeEach, expect, inject, onTestFinished, test } from 'vitest';
import { STEPS_TABLE, Stepped } from '../support/ordered.ts';
import { createSchemas } from '../support/schemas.ts';
import { createVhost, type Vhost } from '../support/vhost.ts';

/**
 * A consumer whose queue has other arguments in the next release: what docs/upgrading.md says to
 * do.
 */

const quiet: Logger = { info: () => undefined, warn: () => undefined, error: () => undefined };

const PATIENCE = { timeout: 30_000, interval: 50 };

let vhost: Vhost;
let pool: Pool;
let relayUrl: string;
beforeEach(async () => {
  const schemas = await createSchemas(inject('servers'));
  vhost = await createVhost(inject('servers'));
  pool = createPool(schemas.fulfilment.adminUrl, { connections: 10 });
  relayUrl = schemas.fulfilment.adminUrl;
  await pool.query(STEPS_TABLE);
  onTestFinished(async () => {
    await pool.end();
    await Promise.all([schemas.drop(), vhost.drop()]);
  });
});

/** The test may stop it, and the end of the test does. */
function once(stop: () => Promise<void>): () => Promise<void> {
  let stopping: Promise<void> | undefined;
  return () => {
    stopping ??= stop();
    return stopping;
  };
}

interface Settings {
  readonly deliveryLimit?: number;
  readonly ordered?: boolean;
}

/** A worker of one release. */
function startWorker({ deliveryLimit = 20, ordered = false }: Settings, logger: Logger = quiet) {
  const steps = defineConsumer({
    name: 'steps',
    ordered,
    handlers: [
      on(Stepped, {
        async handle(tx, { id, payload: { walk, n } }) {
          await tx.execute('INSERT INTO steps (message_id, walk, n) VALUES (?, ?, ?)', [id, walk, n]);
        },
      }),
    ],
  });
  const broker = connectBroker({ urls: [vhost.amqpUrl], name: 'steps', logger: quiet });
  const consumer: Consumer = startConsumer({ broker, inbox: createInbox(pool, steps), logger, deliveryLimit });
  const stop = once(async () => {
    await consumer.stop();
    await broker.close();
  });
  onTestFinished(stop);
  return { ready: () => expect.poll(() => consumer.consuming, PATIENCE).toBe(true), stop };
}

function startRelay(): { stop(): Promise<void> } {
  const publisher = createPublisher({ urls: [vhost.amqpUrl], name: 'relay', logger: quiet });
  const relay: Relay = createRelay({ databaseUrls: [relayUrl], publisher, logger: quiet });
  relay.start();
  const stop = once(async () => {
    await relay.stop();
    await publisher.close();
  });
  onTestFinished(stop);
  return { stop };
}

let written = 0;
async function write(count: number): Promise<void> {
  for (let n = 0; n < count; n += 1) {
    written += 1;
    const message = Stepped.message({ walk: `walk-${n % 3}`, n: written });
    await transaction(pool, (tx) => outbox.add(tx, message));
  }
}
async function effects(): Promise<number> {
  const [rows] = await pool.query<RowDataPacket[]>('SELECT n FROM steps');
  expect(new Set(rows.map(({ n }) => n)).size).toBe(rows.length);
  return rows.length;
}

test.each([
  { name: 'K1: another delivery limit', before: {}, next: { deliveryLimit: 5 } },
  { name: 'K1: an order of keys, which has other queues', before: {}, next: { ordered: true } },
  { name: 'K1: no order of keys any more', before: { ordered: true }, next: {} },
])(
  '$name: the queue is declared anew while messages wait in the outbox, and each has one effect',
  async ({ before, next }) => {
    written = 0;
    const old = startWorker(before);
    const queues = 'ordered' in before ? orderedQueues('steps') : ['steps'];
    await old.ready();
    let relay = startRelay();
    await write(20);
    await expect.poll(effects, PATIENCE).toBe(20);

    await relay.stop(); // 1
    await write(20);
    const waiting = async () => (await Promise.all(queues.map(vhost.depth))).filter((depth) => depth > 0);
    await expect.poll(waiting, PATIENCE).toEqual([]); // 2
    await old.stop(); // 3
    const channel = await vhost.channel();
    for (const queue of queues) await channel.deleteQueue(queue); // 4
    if ('ordered' in before) for (const exchange of ['steps', 'steps.rest']) await channel.deleteExchange(exchange);
    await startWorker(next).ready(); // 5
    relay = startRelay(); // 6
    await expect.poll(effects, PATIENCE).toBe(40);
  },
);

test('K1: a worker whose queue has other arguments says so, and the one of the last release goes on', async () => {
  written = 0;
  await startWorker({}).ready();
  startRelay();
  const said: string[] = [];
  startWorker({ deliveryLimit: 5 }, { ...quiet, warn: (_fields, line = '') => void said.push(line) });
  await expect.poll(() => said.join(), PATIENCE).toMatch(/not consuming: The queue steps exists with other properties/);
  await write(10);
  await expect.poll(effects, PATIENCE).toBe(10);
});
