import { createInbox, defineConsumer, on } from '@oncebox/inbox';
import { defineMessage } from '@oncebox/message';
import { createPool, type Pool, transaction } from '@oncebox/mysql';
import { createRelay, outbox } from '@oncebox/outbox';
import { type Consumer, connectBroker, createPublisher, startConsumer } from '@oncebox/rabbitmq';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, afterEach, beforeAll, expect, inject, test } from 'vitest';
import { z } from 'zod';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';
import { createVhost, type Vhost } from '../support/vhost.ts';

/**
 * The exchange that a contract names is the one that its writer sends to and its readers are bound
 * to.
 */

const PATIENCE = { timeout: 30_000, interval: 50 };
const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined };

let schemas: TestSchemas;
let pool: Pool;
let vhost: Vhost;
beforeAll(async () => {
  [schemas, vhost] = await Promise.all([createSchemas(inject('servers')), createVhost(inject('servers'))]);
  pool = createPool(schemas.fulfilment.url, { connections: 20 });
});
afterAll(async () => {
  await pool.end();
  await Promise.all([schemas.drop(), vhost.drop()]);
});

const started: { stop(): Promise<unknown> }[] = [];
afterEach(async () => {
  for (const each of started.splice(0)) await each.stop();
});

const contractOn = (exchange: string | undefined, type = 'InvoiceSent') =>
  defineMessage({
    type,
    version: 1,
    aggregateType: 'invoice',
    aggregateId: ({ id }) => id,
    routingKey: `invoice.${type}`,
    payload: z.strictObject({ id: z.string() }),
    ...(exchange === undefined ? {} : { exchange }),
  });
type Sent = ReturnType<typeof contractOn>;

const newName = (what: string) => `${what}-${uuidv7()}`;

/** A consumer of these contracts, what it has handled, and what it says. */
function consume(contracts: readonly Sent[], given: { ordered?: boolean; url?: string } = {}) {
  const seen: string[] = [];
  const lines: string[] = [];
  const say = (_fields: object, text: string): void => void lines.push(text);
  const definition = defineConsumer({
    name: newName('reader'),
    ordered: given.ordered ?? false,
    handlers: contracts.map((contract) =>
      on(contract, {
        async handle(_tx, { payload }) {
          seen.push(`${contract.type} ${payload.id}`);
        },
      }),
    ),
  });
  const logger = { info: () => undefined, warn: say, error: say };
  const broker = connectBroker({ urls: [given.url ?? vhost.amqpUrl], name: definition.name, logger: quiet });
  const consumer: Consumer = startConsumer({ broker, inbox: createInbox(pool, definition), logger });
  started.push(consumer, { stop: () => broker.close() });
  return { consumer, seen, lines };
}

async function write(contract: Sent, id: string): Promise<void> {
  await transaction(pool, (tx) => outbox.add(tx, contract.message({ id })));
}

function relay(): void {
  const [, url = ''] = schemas.relayUrls.split(',');
  const publisher = createPublisher({ urls: [vhost.amqpUrl], name: 'relay', logger: quiet });
  const running = createRelay({ databaseUrls: [url], publisher, logger: quiet });
  running.start();
  started.push({ stop: () => running.stop() }, { stop: () => publisher.close() });
}

test.each([{ ordered: false }, { ordered: true }])(
  'G12: a message to the exchange of its contract reaches its consumer, beside others (ordered: $ordered)',
  async ({ ordered }) => {
    const contracts = [
      contractOn(newName('billing')),
      contractOn(newName('stock'), 'Counted'),
      contractOn(undefined, `Paid${ordered}`),
    ];
    for (const [index, contract] of contracts.entries()) await write(contract, `${index}`);
    relay();
    const { seen } = consume(contracts, { ordered });
    await expect.poll(() => seen.toSorted(), PATIENCE).toEqual(['Counted 1', 'InvoiceSent 0', `Paid${ordered} 2`]);
  },
);

test.each(['direct', 'fanout', 'headers'])(
  'G12: an exchange of type %s is refused, and nothing is consumed',
  async (type) => {
    const exchange = newName('theirs');
    await (await vhost.channel()).assertExchange(exchange, type);
    const { consumer, lines } = consume([contractOn(exchange)]);
    await expect
      .poll(() => lines.join('\n'), PATIENCE)
      .toContain(`The exchange ${exchange} of a contract exists and is no topic`);
    expect(consumer.consuming).toBe(false);
  },
);

test('G12: a topic exchange with properties of its own is used as it is', async () => {
  const exchange = newName('theirs');
  const channel = await vhost.channel();
  await channel.assertExchange(exchange, 'topic', { durable: false, alternateExchange: 'amq.fanout' });
  const contract = contractOn(exchange);
  const { consumer, seen } = consume([contract]);
  await expect.poll(() => consumer.consuming, PATIENCE).toBe(true);
  relay();
  await write(contract, 'x');
  await expect.poll(() => seen, PATIENCE).toEqual(['InvoiceSent x']);
});

test('G12: a user who may not declare the exchange waits until it is there, and says so', async () => {
  const exchange = newName('theirs');
  const url = await vhost.userWith({ configure: '^(reader-.*|oncebox\\..*)$', write: '.*', read: '.*' });
  const { consumer, lines } = consume([contractOn(exchange)], { url });
  await expect
    .poll(() => lines.join('\n'), PATIENCE)
    .toContain(`The exchange ${exchange} of a contract does not exist`);
  expect(consumer.consuming).toBe(false);
  await (await vhost.channel()).assertExchange(exchange, 'direct');
  await expect.poll(() => consumer.consuming, PATIENCE).toBe(true);
});
