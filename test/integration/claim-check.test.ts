import { createServer } from 'node:http';
import { createInbox, defineConsumer, on } from '@oncebox/inbox';
import { defineMessage } from '@oncebox/message';
import { createPool, deleteExpired, type Pool, transaction } from '@oncebox/mysql';
import { CLAIMED_PAYLOADS, createRelay, forgetPayloads, outbox, servePayloads } from '@oncebox/outbox';
import { createPublisher } from '@oncebox/rabbitmq';
import { type Listening, listen } from '@oncebox/service';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { newName, PATIENCE, quiet, vhost } from '../support/consumers.ts';
import { consumeWith, letterOf, letters, pool, schemas } from '../support/dead-letters.ts';

/** Payloads over the limit of their contract, from the writer's transaction to the consumer's, with a real relay and HTTP between them. */

const LIMIT = 100;
const SMALL = 'x'.repeat(LIMIT - 2); // two bytes are the quotes of the JSON string
const LARGE = `${'ä'.repeat(LIMIT)}🚚`;

const drawn = (key: string, overLimit: 'refuse' | 'claim-check' = 'claim-check', payload = z.string()) =>
  defineMessage({
    type: `Drawn.${key}`,
    version: 1,
    aggregateType: 'picture',
    aggregateId: () => 'p',
    routingKey: key,
    payload,
    maxBytes: LIMIT,
    overLimit,
  });

let shop: Pool;
let admin: Pool;
let http: Listening;
let payloadsFrom: string;
let stop: () => Promise<unknown>;
beforeAll(async () => {
  shop = createPool(schemas.shop.url, { connections: 4 });
  admin = createPool(schemas.shop.adminUrl, { connections: 1 });
  http = await serve(0);
  payloadsFrom = `http://127.0.0.1:${http.port}/payloads`;
  const publisher = createPublisher({ urls: [vhost.amqpUrl], name: 'relay', logger: quiet });
  const relay = createRelay({ databaseUrls: schemas.relayUrls.split(','), publisher, logger: quiet });
  relay.start();
  stop = async () => {
    await relay.stop();
    await Promise.all([publisher.close(), http.close(), shop.end(), admin.end()]);
  };
});
afterEach(async () => {
  await admin.query('DELETE FROM claimed_payloads');
  await admin.query('UPDATE retention SET forgotten_before = NULL');
});
afterAll(() => stop());

const serve = (port: number): Promise<Listening> =>
  listen(createServer(servePayloads(shop, quiet)), { port, host: '127.0.0.1' });

/** A consumer of the contract of its name, and the payloads that it has handled. */
async function consumer(retryDelaysMs: readonly number[] = [50], schema = z.string()) {
  const name = newName();
  const contract = drawn(name, 'claim-check', schema);
  const handled: string[] = [];
  const handling = on(contract, { payloadsFrom, handle: async (_tx, { payload }) => void handled.push(payload) });
  await consumeWith(createInbox(pool, defineConsumer({ name, handlers: [handling], retryDelaysMs })));
  const write = (payload: string) => transaction(shop, (tx) => outbox.add(tx, contract.message(payload)));
  return { name, contract, handled, write };
}

const written = async (): Promise<number[]> => {
  const counts = ['outbox', 'claimed_payloads'].map(async (table) => {
    const [[row]] = await admin.query<(RowDataPacket & { n: number })[]>('SELECT COUNT(*) AS n FROM ??', [table]);
    return Number(row?.n);
  });
  return await Promise.all(counts);
};

test('a payload over the limit of a contract is refused in bytes, and nothing is written', async () => {
  const contract = drawn(newName(), 'refuse');
  const before = await written();
  const attempt = transaction(shop, (tx) => outbox.add(tx, contract.message(`${SMALL}é`)));
  await expect(attempt).rejects.toMatchObject({
    code: 'ONCEBOX_PAYLOAD_TOO_LARGE',
    message: expect.stringContaining('has 102 bytes and its contract allows 100'),
  });
  expect(await written()).toEqual(before);
});

test('with a claim check the message stays small, and its consumer gets the payload; what fits is sent as it is', async () => {
  const { contract, handled, write } = await consumer();
  await write(SMALL);
  await write(LARGE);
  await expect.poll(() => handled.toSorted(), PATIENCE).toEqual([SMALL, LARGE]);
  const [sent] = await admin.query<RowDataPacket[]>('SELECT id, payload FROM outbox WHERE type = ? ORDER BY seq', [
    contract.type,
  ]);
  expect(sent.map((row) => Buffer.byteLength(row['payload']))).toEqual([LIMIT, expect.toSatisfy((n) => n < 200)]);
  const [kept] = await admin.query<RowDataPacket[]>('SELECT id, payload FROM claimed_payloads');
  expect(kept).toEqual([{ id: sent[1]?.['id'], payload: JSON.stringify(LARGE) }]);
});

test('a payload is kept in the transaction of its message: rolled back, neither is there', async () => {
  const contract = drawn(newName());
  const before = await written();
  const attempt = transaction(shop, async (tx) => {
    await outbox.add(tx, contract.message(LARGE));
    throw new Error('changed my mind');
  });
  await expect(attempt).rejects.toThrow('changed my mind');
  expect(await written()).toEqual(before);
});

test('a message whose payload has expired is dead at once, with that reason', async () => {
  const { name, contract, handled, write } = await consumer();
  await admin.query(
    "UPDATE retention SET forgotten_before = UTC_TIMESTAMP(6) + INTERVAL 1 HOUR WHERE name = 'claimed_payloads'",
  );
  await transaction(shop, async (tx) => {
    const message = contract.message(LARGE);
    await outbox.add(tx, message);
    await tx.execute('DELETE FROM claimed_payloads WHERE id = ?', [message.id]);
  });
  await write(SMALL);
  expect(await letterOf(name)).toMatchObject({ reason: 'PayloadExpiredError ONCEBOX_PAYLOAD_EXPIRED', attempts: 1 });
  await expect.poll(() => handled, PATIENCE).toEqual([SMALL]);
});

test('one whose payload the writer cannot have deleted by its age is retried: the address may be wrong', async () => {
  const { name, contract } = await consumer();
  await admin.query(
    "UPDATE retention SET forgotten_before = UTC_TIMESTAMP(6) - INTERVAL 1 HOUR WHERE name = 'claimed_payloads'",
  );
  await transaction(shop, async (tx) => {
    const message = contract.message(LARGE);
    await outbox.add(tx, message);
    await tx.execute('DELETE FROM claimed_payloads WHERE id = ?', [message.id]);
  });
  expect(await letterOf(name)).toMatchObject({ reason: 'InboxError ONCEBOX_PAYLOAD_UNAVAILABLE', attempts: 2 });
});

test('one whose payload breaks the contract is dead at once', async () => {
  const { name, handled } = await consumer([50], z.string().max(LIMIT));
  await transaction(shop, (tx) => outbox.add(tx, drawn(name).message(LARGE)));
  expect(await letterOf(name)).toMatchObject({ reason: expect.stringContaining('INVALID_PAYLOAD'), attempts: 1 });
  expect(handled).toEqual([]);
});

test('while its writer does not answer a message is retried, and then handled', async () => {
  const { name, handled, write } = await consumer(Array(200).fill(100));
  await http.close();
  await write(LARGE);
  await expect.poll(() => vhost.depth(`${name}.retry.100ms`), PATIENCE).toBe(1);
  expect(handled).toEqual([]);
  http = await serve(http.port);
  await expect.poll(() => handled, PATIENCE).toEqual([LARGE]);
  expect(await letters(name)).toEqual([]);
});

test('a payload that is not what was claimed is never handled', async () => {
  const { name, contract, handled } = await consumer();
  await transaction(shop, async (tx) => {
    const message = contract.message(LARGE);
    await outbox.add(tx, message);
    await tx.execute('DELETE FROM claimed_payloads WHERE id = ?', [message.id]);
    await tx.execute('INSERT INTO claimed_payloads (id, payload) VALUES (?, ?)', [message.id, JSON.stringify(SMALL)]);
  });
  expect(await letterOf(name)).toMatchObject({ reason: 'InboxError ONCEBOX_PAYLOAD_DIFFERS', attempts: 2 });
  expect(handled).toEqual([]);
});

/**
 * A payload and the row of its message, both written so many hours ago. @param publishedAgo in
 * hours; null for a message that is not published
 */
async function keep(
  count: number,
  writtenAgo: number,
  publishedAgo: number | null,
  state = 'published',
): Promise<string[]> {
  const ids = Array.from({ length: count }, () => uuidv7());
  const at = (hours: number) => `UTC_TIMESTAMP(6) - INTERVAL ${hours} HOUR`;
  await admin.query(
    `INSERT INTO claimed_payloads (id, payload, created_at) VALUES ${ids.map(() => `(?, '{}', ${at(writtenAgo)})`).join()}`,
    ids,
  );
  const published = publishedAgo === null ? 'NULL' : at(publishedAgo);
  await admin.query(
    `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, state, created_at, published_at)
     VALUES ${ids.map(() => `(?, 'picture', 'kept', 'Kept', '{}', '${state}', ${at(writtenAgo)}, ${published})`).join()}`,
    ids,
  );
  return ids;
}

test('D4: payloads are deleted after their retention, unless their messages may still be on their way', async () => {
  const unpublished = await keep(600, 5, null, 'parked');
  const [expired] = await keep(1, 4, 3);
  const [gone] = await keep(1, 4, 3);
  await admin.query('DELETE FROM outbox WHERE id = ?', [gone]);
  const late = await keep(1, 4, 1);
  const many = await keep(1_200, 4, 3);
  const young = await keep(1, 1, 0);
  const forgotten = await deleteExpired(shop, CLAIMED_PAYLOADS, 2, new AbortController().signal);
  const [rows] = await admin.query<RowDataPacket[]>('SELECT id FROM claimed_payloads');
  const left = rows.map((row) => String(row['id']));
  expect(left.sort()).toEqual([...unpublished, ...late, ...young].sort());
  expect(left).not.toContain(expired);
  expect(forgotten).toBe(2 + many.length);
  await admin.query("DELETE FROM outbox WHERE aggregateid = 'kept'");
});

test('a service deletes the payloads of its messages from its start on', async () => {
  await keep(1, 4, 3);
  const enough = new AbortController();
  const forgetting = forgetPayloads(shop, { keepHours: 1, signal: enough.signal, logger: quiet });
  const kept = async () => (await admin.query<RowDataPacket[]>('SELECT id FROM claimed_payloads'))[0];
  await expect.poll(kept, PATIENCE).toEqual([]);
  enough.abort();
  await forgetting;
});
