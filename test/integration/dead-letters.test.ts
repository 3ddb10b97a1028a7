import { createInbox, defineConsumer, NonRetryableError, on } from '@oncebox/inbox';
import { defineMessage, type Inbox, MessageError } from '@oncebox/message';
import { createPool, type Pool } from '@oncebox/mysql';
import type { Consumer } from '@oncebox/rabbitmq';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { z } from 'zod';
import { channel, consume, handled, newName, OrderError, PATIENCE, send, vhost } from '../support/consumers.ts';
import { start as startProgram } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

/** Consumers with the inbox's own store of dead letters, as the worker's database user. */

let schemas: TestSchemas;
let pool: Pool;
beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  pool = createPool(schemas.fulfilment.url, { connections: 10 });
});
afterAll(async () => {
  await pool.end();
  await schemas.drop();
});

type Handle = (message: { readonly id: string; readonly routingKey: string }) => Promise<void>;
type Settings = Parameters<typeof consume>[2];

/** The inbox of a consumer of `Checked` v1. */
const inboxFor = (name: string, handle: Handle, database: Pool = pool): Inbox => {
  const Checked = defineMessage({
    type: 'Checked',
    version: 1,
    aggregateType: 'thing',
    aggregateId: () => 'x',
    routingKey: `${name}.checked`,
    payload: z.strictObject({ a: z.int().optional(), people: z.record(z.string(), z.int()).optional() }),
  });
  const handlers = [on(Checked, { handle: (_tx, message) => handle(message) })];
  return createInbox(database, defineConsumer({ name, handlers, retryDelaysMs: [50] }));
};

const consumeWith = (inbox: Inbox, settings: Settings = {}): Promise<Consumer> =>
  consume(inbox.name, inbox.process, { ...inbox, replayPollMs: 50, ...settings });

const publish = (name: string, given: Parameters<typeof send>[1] = {}, body = '{}'): string =>
  send(`${name}.checked`, { type: 'Checked', ...given }, body);

async function letters(consumer: string): Promise<RowDataPacket[]> {
  const [rows] = await pool.query<RowDataPacket[]>(
    'SELECT *, CAST(message_id AS CHAR) AS message FROM dead_letters WHERE consumer = ? ORDER BY id',
    [consumer],
  );
  return rows;
}

async function letterOf(consumer: string): Promise<RowDataPacket> {
  await expect.poll(() => letters(consumer), PATIENCE).toHaveLength(1);
  const [row] = await letters(consumer);
  if (row === undefined) throw new Error('gone again');
  return row;
}

const fail = async (): Promise<never> => {
  throw new OrderError('someone@example.org has no order');
};
const states = async (consumer: string) => (await letters(consumer)).map((row) => row['state']);
const markAll = (consumer: string) =>
  pool.query("UPDATE dead_letters SET state = 'replay' WHERE consumer = ?", [consumer]);

const storeOf = ({ deadLetters }: Inbox) => deadLetters ?? expect.fail();

/** Puts messages into a dead queue that nobody drains yet. */
async function fill(name: string, count: number): Promise<string[]> {
  const failing = await consume(name, async () => ({ kind: 'dead', error: new OrderError('x') }));
  const ids = Array.from({ length: count }, () => send(name));
  await expect.poll(() => vhost.depth(`${name}.dead`), PATIENCE).toBe(count);
  await failing.stop();
  return ids;
}

describe('what is given up becomes a row', () => {
  test('with its record, its properties and its body as they were, and no data from the error', async () => {
    const name = newName();
    const consumer = await consumeWith(inboxFor(name, fail));
    const headers = {
      mine: 'ä',
      large: 2 ** 40,
      bytes: Buffer.from([0, 255]),
      'cloudEvents:time': '2026-03-01T10:00:00.123Z',
    };
    const id = publish(name, { correlationId: 'corr', timestamp: 42, appId: 'shop', headers }, '{"a": 1}');
    const row = await letterOf(name);
    expect(row).toMatchObject({
      consumer: name,
      message: id,
      type: 'Checked',
      version: 1,
      routing_key: `${name}.checked`,
      reason: 'OrderError E_ORDER',
      error_class: 'OrderError',
      attempts: 2,
      occurred_at: new Date('2026-03-01T10:00:00.123Z'),
      state: 'dead',
      body: Buffer.from('{"a": 1}'),
    });
    expect(row['last_failed_at'] - row['first_failed_at']).toBeGreaterThanOrEqual(45);
    expect(JSON.parse(row['properties'])).toEqual({
      messageId: id,
      type: 'Checked',
      contentType: 'application/json',
      correlationId: 'corr',
      timestamp: 42,
      appId: 'shop',
      headers: { schemaversion: 1, ...headers, bytes: { type: 'Buffer', data: [0, 255] } },
    });
    expect(JSON.stringify(row)).not.toContain('example.org');
    await consumer.stop();
    expect(await vhost.depth(`${name}.dead`)).toBe(0);
  });

  class EmailBounced extends NonRetryableError {}
  const reasons: { title: string; handle?: Handle; given?: object; body?: string; row: object }[] = [
    {
      title: "a team's own NonRetryableError by its name, at once",
      handle: async () => {
        throw new EmailBounced('to someone@example.org');
      },
      row: { reason: 'EmailBounced', error_class: 'EmailBounced', attempts: 1 },
    },
    {
      title: "an error class that sets no name by its constructor's",
      handle: async () => {
        throw new (class Unnamed extends Error {})('someone@example.org');
      },
      row: { reason: 'Unnamed', error_class: 'Unnamed', attempts: 2 },
    },
    {
      title: 'a code that is no code by nothing',
      handle: async () => {
        throw Object.assign(new TypeError('x'), { code: 'someone@example.org' });
      },
      row: { reason: 'TypeError', error_class: 'TypeError' },
    },
    {
      title: 'a payload that breaks its contract by the paths that do, at once',
      body: '{"a":"someone@example.org"}',
      row: {
        reason: expect.stringMatching(/^MessageError ONCEBOX_INVALID_PAYLOAD: Checked v1: .*: a: Invalid input/),
        error_class: 'MessageError',
        attempts: 1,
      },
    },
    {
      title: 'keys of the payload that no schema names, without those keys',
      body: '{"someone@example.org":1,"people":{"someone@example.org":"x"}}',
      row: { reason: expect.stringMatching(/people\.\*: Invalid input.*Unrecognized keys: \*/) },
    },
    {
      title: 'a version that nobody handles, after its attempts',
      given: { headers: { schemaversion: 9 } },
      row: { reason: expect.stringMatching(/^MessageError ONCEBOX_UNKNOWN_MESSAGE: /), version: 9, attempts: 2 },
    },
    {
      title: 'a type that nobody handles, after its attempts',
      given: { type: 'Unheard' },
      row: { reason: expect.stringMatching(/^MessageError ONCEBOX_UNKNOWN_MESSAGE: /), type: 'Unheard', attempts: 2 },
    },
    {
      title: 'a message without an id',
      given: { messageId: '' },
      row: {
        reason: 'MessageError ONCEBOX_MALFORMED_MESSAGE: The message has no messageId',
        message_id: null,
        attempts: 1,
      },
    },
  ];
  test.each(reasons)('$title', async ({ handle = async () => undefined, given, body, row }) => {
    const name = newName();
    await consumeWith(inboxFor(name, handle));
    publish(name, given, body);
    const letter = await letterOf(name);
    expect(letter).toMatchObject(row);
    expect(letter['reason']).not.toContain('example.org');
  });

  test('a long reason is cut, and is text still', async () => {
    const name = newName();
    await consumeWith({
      ...inboxFor(name, fail),
      process: async () => ({ kind: 'dead', error: new MessageError('ONCEBOX_INVALID_PAYLOAD', '😀'.repeat(400)) }),
    });
    publish(name);
    expect((await letterOf(name))['reason']).toMatch(/^MessageError ONCEBOX_INVALID_PAYLOAD: 😀{200}/u);
  });

  test('messages without an id that are the same in all else are as many rows', async () => {
    const name = newName();
    await consumeWith(inboxFor(name, fail));
    for (let i = 0; i < 20; i++) publish(name, { messageId: '' });
    await expect.poll(() => letters(name), PATIENCE).toHaveLength(20);
  });

  test('a message that the broker gave up, because its worker crashed each time', async () => {
    const name = newName();
    const setUp = await consumeWith(inboxFor(name, fail), { deliveryLimit: 2 });
    await setUp.stop();
    const id = publish(name, { headers: { mine: 1 } });
    for (let crashes = 0; (await vhost.depth(`${name}.dead`)) === 0; crashes++) {
      expect(crashes).toBeLessThan(5);
      const crashing = await vhost.channel();
      let got = 0;
      await crashing.consume(name, () => got++);
      await expect.poll(async () => got + (await vhost.depth(`${name}.dead`)), PATIENCE).toBeGreaterThan(0);
      await crashing.close();
    }
    await consumeWith(inboxFor(name, fail), { deliveryLimit: 2 });
    const row = await letterOf(name);
    expect(row).toMatchObject({
      message: id,
      reason: 'delivery_limit',
      error_class: null,
      attempts: 3,
      routing_key: `${name}.checked`,
    });
    expect(Math.abs(Date.now() - row['last_failed_at'])).toBeLessThan(60_000);
    expect(JSON.parse(row['properties']).headers).toEqual({ schemaversion: 1, mine: 1 });
  });
});

describe('no dead letter is lost or doubled', () => {
  test('a worker that dies between the row and the acknowledgement leaves one row', async () => {
    const name = newName();
    await fill(name, 1);
    const inbox = inboxFor(name, fail);
    const copies: string[] = [];
    const never = Promise.withResolvers<void>();
    await consumeWith(inbox, {
      deadLetters: {
        replay: async () => false,
        async keep(letter) {
          await storeOf(inbox).keep(letter);
          copies.push(letter.copyHash.toString('hex'));
          if (copies.length === 1) await never.promise;
        },
      },
    });
    await letterOf(name);
    await vhost.closeConnections(`${name} consuming`);
    await expect.poll(() => copies.length, PATIENCE).toBe(2);
    expect(copies[1]).toBe(copies[0]);
    expect(await letters(name)).toHaveLength(1);
    await expect.poll(() => vhost.depth(`${name}.dead`), PATIENCE).toBe(0);
  });

  test('while the database is away they wait in the dead queue, and are all kept when it is back', async () => {
    const name = newName();
    const proxy = await startProxy(schemas.fulfilment.url);
    const away = createPool(proxy.url, { connections: 5 });
    const ids = await fill(name, 30);
    await proxy.refuse();
    const inbox = inboxFor(name, fail, away);
    let refused = 0;
    await consumeWith(inbox, {
      probe: async () => undefined,
      register: async () => undefined,
      deadLetters: {
        replay: async () => false,
        keep: (letter) =>
          storeOf(inbox)
            .keep(letter)
            .catch((error) => {
              refused++;
              throw error;
            }),
      },
    });
    await expect.poll(() => refused, PATIENCE).toBeGreaterThan(10);
    expect(await vhost.depth(`${name}.dead`)).toBe(25);
    await proxy.pass();
    await expect.poll(() => letters(name), PATIENCE).toHaveLength(30);
    expect(new Set((await letters(name)).map((row) => row['message']))).toEqual(new Set(ids));
    await expect.poll(() => vhost.depth(`${name}.dead`), PATIENCE).toBe(0);
    await away.end();
  });

  test('a reader that looks into the dead queue and leaves takes nothing away, however often', async () => {
    const name = newName();
    await fill(name, 1);
    for (let looks = 0; looks < 25; looks++) {
      const reader = await vhost.channel();
      expect(await reader.get(`${name}.dead`)).not.toBe(false);
      await reader.close();
      await expect.poll(() => vhost.depth(`${name}.dead`), PATIENCE).toBe(1);
    }
  });
});

describe('replay', () => {
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
      pool.query('UPDATE dead_letters SET properties = ? WHERE consumer = ? AND message_id = ?', [
        properties,
        name,
        id,
      ]);
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
});

test('the worker: a version it does not know yet becomes a dead letter, is replayed to a worker by plain SQL, and each is logged', async () => {
  const environment = {
    WORKER_DATABASE_URL: schemas.fulfilment.url,
    AMQP_URL: vhost.amqpUrl,
    WORKER_OPS_PORT: '0',
    WORKER_RETRY_DELAYS_MS: '50,60',
  };
  const worker = startProgram('apps/worker/src/main.ts', environment);
  await worker.ready();
  const [registered] = await pool.query<RowDataPacket[]>('SELECT consumer, type FROM consumers ORDER BY 1, 2');
  expect(registered).toEqual(
    expect.arrayContaining([
      { consumer: 'customer-directory', type: 'CustomerCreated' },
      { consumer: 'customer-directory', type: 'CustomerUpdated' },
      { consumer: 'welcome-email', type: 'CustomerCreated' },
    ]),
  );
  const payload = { customerId: uuidv7(), email: `${uuidv7()}@example.org`, name: 'Zoë', version: 1 };
  const given = { type: 'CustomerCreated', headers: { schemaversion: 77 } };
  send('customer.created', given, JSON.stringify(payload));
  const row = await letterOf('welcome-email');
  expect(row).toMatchObject({ attempts: 3, version: 77, routing_key: 'customer.created' });
  expect(JSON.stringify(worker.lines)).not.toContain(payload.email);

  // What an operator may do: mend it, and let it try again.
  await pool.query(
    "UPDATE dead_letters SET properties = REPLACE(properties, '77', '1'), state = 'replay' WHERE consumer = 'welcome-email'",
  );
  await expect.poll(() => states('welcome-email'), PATIENCE).toEqual(['replayed']);
  const emails = async () => {
    const [rows] = await pool.query<RowDataPacket[]>('SELECT recipient FROM emails');
    return rows;
  };
  await expect.poll(emails, PATIENCE).toEqual([{ recipient: payload.email }]);
  worker.kill('SIGTERM');
  expect(await worker.exited).toBe(0);
});
