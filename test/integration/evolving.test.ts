import { createInbox, defineConsumer, type Handling, on, onBatch } from '@oncebox/inbox';
import { defineMessage, type Message, nextVersion } from '@oncebox/message';
import { createPool, type Pool, transaction } from '@oncebox/mysql';
import { createRelay, outbox } from '@oncebox/outbox';
import { type Consumer, createPublisher } from '@oncebox/rabbitmq';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { newName, PATIENCE, quiet, vhost } from '../support/consumers.ts';
import { consumeWith, letterOf, markAll, pool, schemas, states } from '../support/dead-letters.ts';

/** A message whose versions meet in one queue, as in a fleet that is being deployed: written, relayed and consumed by the real thing. */

let shop: Pool;
let stop: () => Promise<unknown>;
beforeAll(() => {
  shop = createPool(schemas.shop.url, { connections: 4 });
  const publisher = createPublisher({ urls: [vhost.amqpUrl], name: 'relay', logger: quiet });
  const relay = createRelay({ databaseUrls: schemas.relayUrls.split(','), publisher, logger: quiet });
  relay.start();
  stop = async () => {
    await relay.stop();
    await Promise.all([publisher.close(), shop.end()]);
  };
});
afterAll(() => stop());

/** What a release of last month knows of a message, this release, and the next. */
function releases(key: string) {
  const common = { type: `Moved.${key}`, aggregateType: 'box', routingKey: key };
  const aggregateId = ({ box }: { box: string }) => box;
  const v1 = defineMessage({
    ...common,
    version: 1,
    aggregateId,
    payload: z.strictObject({ box: z.string(), to: z.string() }),
  });
  const v2 = nextVersion(v1, {
    aggregateId,
    payload: z.strictObject({ box: z.string(), to: z.strictObject({ city: z.string() }) }),
    upcast: ({ box, to }) => ({ box, to: { city: to } }),
  });
  const v3 = nextVersion(v2, {
    aggregateId,
    payload: z.strictObject({ box: z.string(), city: z.string(), floor: z.int().nullable() }),
    upcast: ({ box, to }) => ({ box, city: to.city, floor: null }),
  });
  return { v1, v2, v3 };
}

const work = (name: string, handling: Handling): Promise<Consumer> =>
  consumeWith(createInbox(pool, defineConsumer({ name, handlers: [handling], retryDelaysMs: [50, 50] })));

const write = (...messages: Message[]): Promise<void> =>
  transaction(shop, async (tx) => {
    for (const message of messages) await outbox.add(tx, message);
  });

test('old producers and a new worker: its handlers see each message in the newest form, whatever version it was sent as', async () => {
  const [name, batched] = [newName(), newName()];
  const { v1, v2, v3 } = releases(name);
  const alone: unknown[] = [];
  const together: unknown[] = [];
  await work(name, on(v3, { handle: async (_tx, { version, payload }) => void alone.push([version, payload]) }));
  const handle = async (_tx: unknown, messages: readonly { payload: { box: string; city: string } }[]) =>
    void together.push(...messages.map(({ payload }) => payload));
  await work(batched, onBatch(v3, { handle }));
  await write(
    v1.message({ box: 'a', to: 'Ulm' }),
    v2.message({ box: 'b', to: { city: 'Bern' } }),
    v3.message({ box: 'c', city: 'Wien', floor: 3 }),
  );
  const newest = [
    { box: 'a', city: 'Ulm', floor: null },
    { box: 'b', city: 'Bern', floor: null },
    { box: 'c', city: 'Wien', floor: 3 },
  ];
  await expect.poll(() => alone.length, PATIENCE).toBe(3);
  expect(alone).toEqual(expect.arrayContaining(newest.map((payload, index) => [index + 1, payload])));
  await expect.poll(() => together.length, PATIENCE).toBe(3);
  expect(together).toEqual(expect.arrayContaining(newest));
});

test('a new producer and an old worker: what it does not know is dead with that reason while the rest flows, and is handled when it is replayed after the upgrade', async () => {
  const name = newName();
  const { v1, v2 } = releases(name);
  const old: unknown[] = [];
  const worker = await work(name, on(v1, { handle: async (_tx, { payload }) => void old.push(payload) }));
  const newer = v2.message({ box: 'b', to: { city: 'Bern' } });
  await write(newer, v1.message({ box: 'a', to: 'Ulm' }));
  await expect.poll(() => old, PATIENCE).toEqual([{ box: 'a', to: 'Ulm' }]);
  expect(await letterOf(name)).toMatchObject({
    message: newer.id,
    version: 2,
    attempts: 3,
    reason: `MessageError ONCEBOX_UNKNOWN_MESSAGE: ${name} does not read Moved.${name} v2: deploy the worker that does, then replay what is dead by then`,
  });

  await worker.stop();
  const upgraded: unknown[] = [];
  await work(name, on(v2, { handle: async (_tx, { id, payload }) => void upgraded.push([id, payload]) }));
  await markAll(name);
  await expect.poll(() => upgraded, PATIENCE).toEqual([[newer.id, { box: 'b', to: { city: 'Bern' } }]]);
  await expect.poll(() => states(name), PATIENCE).toEqual(['replayed']);
  expect(old).toHaveLength(1);
});

test('a new producer and an old worker, upgraded in time: the retry ladder hands the message to the worker that knows it', async () => {
  const name = newName();
  const { v1, v2 } = releases(name);
  const retryDelaysMs = Array<number>(100).fill(100);
  const patient = (handling: Handling) =>
    consumeWith(createInbox(pool, defineConsumer({ name, handlers: [handling], retryDelaysMs })));
  const worker = await patient(on(v1, { handle: async () => undefined }));
  const newer = v2.message({ box: 'b', to: { city: 'Bern' } });
  await write(newer);
  await expect.poll(() => vhost.depth(`${name}.retry.100ms`), PATIENCE).toBe(1);
  await worker.stop();
  const upgraded: string[] = [];
  await patient(on(v2, { handle: async (_tx, { id }) => void upgraded.push(id) }));
  await expect.poll(() => upgraded, PATIENCE).toEqual([newer.id]);
  expect(await states(name)).toEqual([]);
});

test('an ordered consumer holds the key of a message that it does not know, and after the upgrade handles it in its place', async () => {
  const name = newName();
  const { v1, v2 } = releases(name);
  const ordered = (handling: Handling) =>
    consumeWith(createInbox(pool, defineConsumer({ name, handlers: [handling], retryDelaysMs: [50], ordered: true })));
  const old: string[] = [];
  const worker = await ordered(on(v1, { handle: async (_tx, { payload }) => void old.push(payload.box) }));
  const [first, second] = [v2.message({ box: 'b', to: { city: 'Bern' } }), v1.message({ box: 'b', to: 'Ulm' })];
  await write(first, second, v1.message({ box: 'other', to: 'Ulm' }));
  await letterOf(name);
  await expect.poll(() => old, PATIENCE).toEqual(['other']);
  await worker.stop();
  const upgraded: string[] = [];
  await ordered(on(v2, { handle: async (_tx, { id }) => void upgraded.push(id) }));
  await markAll(name);
  await expect.poll(() => upgraded, PATIENCE).toEqual([first.id, second.id]);
});
