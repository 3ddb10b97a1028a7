import { NonRetryableError } from '@oncebox/inbox';
import { MessageError } from '@oncebox/message';
import { createPool } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { describe, expect, test } from 'vitest';
import { connect, consume, newName, OrderError, PATIENCE, send, vhost } from '../support/consumers.ts';
import {
  consumeWith,
  fail,
  type Handle,
  inboxFor,
  letterOf,
  letters,
  pool,
  publish,
  schemas,
  states,
  storeOf,
} from '../support/dead-letters.ts';
import { start as startProgram } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';

/** Puts messages into a dead queue that nobody drains yet. */
async function fill(name: string, count: number): Promise<string[]> {
  // By a name of its own: who closes the consumer's connection by its name must not find this one instead.
  const broker = connect(`${name} filling`);
  const failing = await consume(name, async () => ({ kind: 'dead', error: new OrderError('x') }), { broker });
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
      // JSON has no int64 and no bytes.
      bytes: expect.stringMatching(/^[\w+/]+=*$/),
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
      reason: expect.stringMatching(`^delivery_limit: the broker gave it up in the queue ${name}, .* 1 time: `),
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
    // It consumes all the same: of what asks the database, only the store of dead letters is left.
    const { presence: _asks, ...inbox } = inboxFor(name, fail, away);
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
