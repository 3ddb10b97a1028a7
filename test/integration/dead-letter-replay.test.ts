import type { Inbox } from '@oncebox/message';
import { createPool } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { expect, test } from 'vitest';
import { channel, consume, handled, newName, OrderError, PATIENCE, vhost } from '../support/consumers.ts';
import {
  consumeWith,
  fail,
  inboxFor,
  letterOf,
  letters,
  markAll,
  pool,
  publish,
  schemas,
  states,
  storeOf,
} from '../support/dead-letters.ts';

/** What an operator marks with `state = 'replay'`. */

test('sends it to its own consumer alone, as it was first published, with all attempts before it', async () => {
  const [name, other] = [newName(), newName()];
  const attempts: string[] = [];
  let cured = false;
  const inbox = inboxFor(name, async ({ id, routingKey }) => {
    attempts.push(`${id} ${routingKey}`);
    if (!cured) await fail();
  });
  const others: string[] = [];
  await consumeWith(inbox);
  const routingKeys = [other, `${name}.checked`];
  const elsewhere: Inbox['process'] = async ({ id: seen }) => {
    others.push(seen);
    return handled;
  };
  await consume(other, elsewhere, { routingKeys });
  const id = publish(name, { correlationId: 'corr', headers: { bytes: Buffer.from([0, 255]) } });
  const first = await letterOf(name);
  expect(attempts).toHaveLength(2);

  await markAll(name);
  await expect.poll(() => states(name), PATIENCE).toEqual(['replayed', 'dead']);
  const [, second] = await letters(name);
  expect(attempts).toEqual(Array(4).fill(`${id} ${name}.checked`));
  expect(second).toMatchObject({ attempts: 2, properties: first['properties'], routing_key: `${name}.checked` });

  cured = true;
  await pool.query("UPDATE dead_letters SET state = 'replay' WHERE consumer = ? AND state = 'dead'", [name]);
  await expect.poll(() => states(name), PATIENCE).toEqual(['replayed', 'replayed']);
  await expect.poll(() => attempts.length, PATIENCE).toBe(5);
  expect(others).toEqual([id]);
});

test('takes effect once, however often it is replayed', async () => {
  const name = newName();
  let effects = 0;
  let cured = false;
  const inbox = inboxFor(name, async () => {
    if (!cured) await fail();
    effects++;
  });
  const consumer = await consumeWith(inbox);
  publish(name);
  await letterOf(name);
  cured = true;
  for (let times = 0; times < 2; times++) {
    await markAll(name);
    await expect.poll(() => states(name), PATIENCE).toEqual(['replayed']);
  }
  await expect.poll(() => effects, PATIENCE).toBe(1);
  await consumer.stop(); // with what it has in hand
  expect(await vhost.depth(name)).toBe(0);
  expect(effects).toBe(1);
});

test('of several workers one sends each', async () => {
  const name = newName();
  let cured = false;
  const deliveries: string[] = [];
  const inboxes = [1, 2, 3].map(() => {
    const inbox = inboxFor(name, async () => {
      if (!cured) await fail();
    });
    const process: Inbox['process'] = (message) => {
      if (cured) deliveries.push(message.id);
      return inbox.process(message);
    };
    return { ...inbox, process };
  });
  for (const inbox of inboxes) await consumeWith(inbox, { replayPollMs: 5 });
  const ids = Array.from({ length: 100 }, () => publish(name));
  await expect.poll(() => letters(name), PATIENCE).toHaveLength(100);
  cured = true;
  await markAll(name);
  await expect.poll(async () => new Set(await states(name)), PATIENCE).toEqual(new Set(['replayed']));
  await expect.poll(() => new Set(deliveries), PATIENCE).toEqual(new Set(ids));
  expect(deliveries).toHaveLength(100);
});

test('one that was edited into what cannot be sent is dead as before, and stops no other', async () => {
  const name = newName();
  let cured = false;
  const done: string[] = [];
  const inbox = inboxFor(name, async ({ id }) => {
    if (!cured) await fail();
    done.push(id);
  });
  await consumeWith(inbox);
  const ids = [publish(name), publish(name), publish(name)];
  await expect.poll(() => letters(name), PATIENCE).toHaveLength(3);
  cured = true;
  const edit = (properties: string, id: string | undefined) =>
    pool.query('UPDATE dead_letters SET properties = ? WHERE consumer = ? AND message_id = ?', [properties, name, id]);
  await edit('{oops', ids[0]);
  await edit('{"headers":{"mine":{"!":"nonsense","value":1}}}', ids[1]);
  await markAll(name);
  await expect.poll(async () => (await states(name)).sort(), PATIENCE).toEqual(['dead', 'dead', 'replayed']);
  await expect.poll(() => done, PATIENCE).toEqual([ids[2]]);
});

test('what cannot be sent now stays marked, and those sent before it are marked as sent', async () => {
  const name = newName();
  const inbox = inboxFor(name, fail);
  const store = storeOf(inbox);
  for (let i = 0; i < 3; i++) {
    await store.keep({
      messageId: uuidv7(),
      type: 'Checked',
      version: 1,
      routingKey: 'k',
      properties: '{}',
      body: Buffer.from(String(i)),
      reason: 'x',
      errorClass: undefined,
      attempts: 1,
      firstFailedAt: undefined,
      lastFailedAt: undefined,
      occurredAt: undefined,
      copyHash: Buffer.alloc(32, i),
    });
  }
  await markAll(name);
  const sent: string[] = [];
  const sending = store.replay(async ({ body }) => {
    if (sent.length === 1) throw new OrderError('no queue');
    sent.push(body.toString());
    return 'sent';
  });
  await expect(sending).rejects.toMatchObject({ code: 'E_ORDER' });
  expect(sent).toEqual(['0']);
  expect(await states(name)).toEqual(['replayed', 'replay', 'replay']);
});

test('a marked letter waits while its queue is gone, and is sent when the consumer has declared it again', async () => {
  const name = newName();
  let cured = false;
  const inbox = inboxFor(name, async () => {
    if (!cured) await fail();
  });
  const consumer = await consumeWith(inbox);
  publish(name);
  await letterOf(name);
  await consumer.stop();
  await channel.deleteQueue(name);
  cured = true;
  await markAll(name);
  await consumeWith(inbox);
  await expect.poll(() => states(name), PATIENCE).toEqual(['replayed']);
});

test('the look for marked rows reads none of the others', async () => {
  const name = newName();
  const one = createPool(schemas.fulfilment.url, { connections: 1 });
  const store = storeOf(inboxFor(name, fail, one));
  const values = Array.from({ length: 3_000 }, (_, i) => [
    i % 2 === 0 ? name : 'another',
    'k',
    '{}',
    '',
    'x',
    1,
    i % 2 === 0 ? 'dead' : 'replay',
    Buffer.from(i.toString().padStart(32)),
  ]);
  await one.query(
    'INSERT INTO dead_letters (consumer, routing_key, properties, body, reason, attempts, state, copy_hash) VALUES ?',
    [values],
  );
  const reads = async (): Promise<number> => {
    const [rows] = await one.query<RowDataPacket[]>("SHOW SESSION STATUS LIKE 'Handler_read%'");
    return rows.reduce((sum, row) => sum + Number(row['Value']), 0);
  };
  const [before, idle] = [await reads(), await reads()];
  await store.replay(() => expect.fail());
  expect((await reads()) - idle - (idle - before)).toBeLessThan(10);
  await one.end();
});
