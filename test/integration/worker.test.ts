import type { Channel } from 'amqplib';
import { type Connection, createConnection, type RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { type Line, type Program, start } from '../support/processes.ts';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';
import { createVhost, type Vhost } from '../support/vhost.ts';

/** The real worker, a process, against a schema and a vhost of this file's own, with the worker's own database user. */

const PATIENCE = { timeout: 30_000, interval: 50 };

let vhost: Vhost;
let channel: Channel;
let schemas: TestSchemas;
let db: Connection;
beforeAll(async () => {
  [vhost, schemas] = await Promise.all([createVhost(inject('servers')), createSchemas(inject('servers'))]);
  channel = await vhost.channel();
  db = await createConnection({ uri: schemas.fulfilment.adminUrl });
});
afterAll(async () => {
  await db.end();
  await Promise.all([vhost.drop(), schemas.drop()]);
});

const startWorker = (environment: Record<string, string> = {}): Program =>
  start('apps/worker/src/main.ts', {
    WORKER_DATABASE_URL: schemas.fulfilment.url,
    AMQP_URL: vhost.amqpUrl,
    WORKER_OPS_PORT: '0',
    ...environment,
  });

async function readyWorker(environment?: Record<string, string>): Promise<Program> {
  const worker = startWorker(environment);
  await worker.ready();
  return worker;
}

interface Customer {
  readonly customerId: string;
  readonly email: string;
  readonly name: string;
  readonly version: number;
}
const customer = (given: Partial<Customer> = {}): Customer => ({
  customerId: uuidv7(),
  email: `${uuidv7()}@example.org`,
  name: 'Zoë',
  version: 1,
  ...given,
});

function send(
  type: 'CustomerCreated' | 'CustomerUpdated',
  payload: object,
  messageId = uuidv7(),
  schemaversion = 1,
): string {
  const key = type === 'CustomerCreated' ? 'customer.created' : 'customer.updated';
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
  channel.publish('oncebox.events', key, Buffer.from(JSON.stringify(payload)), {
    messageId,
    type,
    persistent: true,
    correlationId: 'corr-1',
    headers: { schemaversion, traceparent },
  });
  return messageId;
}

async function select(sql: string, values: readonly (string | readonly string[])[]): Promise<RowDataPacket[]> {
  const [found] = await db.query<RowDataPacket[]>(sql, [...values]);
  return found;
}
const directory = (id: string) =>
  select('SELECT name, email, version FROM customer_directory WHERE customer_id = ?', [id]);
const emails = (id: string) =>
  select('SELECT message_id, recipient, subject, body FROM emails WHERE customer_id = ?', [id]);

/** Of one message, because a worker may also be sent what the one of the test before had not acknowledged when it was killed. */
const handlingLines = ({ lines }: Program, messageId?: string): Line[] =>
  lines.filter(
    (line) => line.msg.startsWith('Handling [') && (messageId === undefined || line['messageId'] === messageId),
  );

describe('effects', () => {
  test('a CustomerCreated makes one welcome e-mail and one entry in the directory, also when it comes twice', async () => {
    await readyWorker();
    const payload = customer();
    const id = send('CustomerCreated', payload);
    send('CustomerCreated', payload, id);
    await expect.poll(() => directory(payload.customerId), PATIENCE).toHaveLength(1);
    const later = customer();
    send('CustomerCreated', later);
    await expect.poll(() => emails(later.customerId), PATIENCE).toHaveLength(1);
    expect(await emails(payload.customerId)).toEqual([
      { message_id: id, recipient: payload.email, subject: 'Welcome', body: 'Welcome, Zoë!' },
    ]);
    expect(await directory(payload.customerId)).toEqual([{ name: 'Zoë', email: payload.email, version: 1 }]);
  });

  test('the directory takes a newer version and not an older one, whole or not at all', async () => {
    await readyWorker();
    const first = customer();
    const third = { ...first, version: 3, name: 'Third', email: 'third@example.org' };
    const second = { ...first, version: 2, name: 'Second', email: 'second@example.org' };
    send('CustomerCreated', first);
    await expect.poll(() => directory(first.customerId), PATIENCE).toMatchObject([{ version: 1 }]);
    send('CustomerUpdated', third);
    await expect.poll(() => directory(first.customerId), PATIENCE).toMatchObject([{ version: 3 }]);
    const [before] = await select('SELECT updated_at FROM customer_directory WHERE customer_id = ?', [
      first.customerId,
    ]);
    const late = send('CustomerUpdated', second);
    await expect
      .poll(() => select('SELECT 1 FROM processed_messages WHERE message_id = ?', [late]), PATIENCE)
      .toHaveLength(1);
    expect(await directory(first.customerId)).toEqual([{ name: 'Third', email: 'third@example.org', version: 3 }]);
    expect(await select('SELECT updated_at FROM customer_directory WHERE customer_id = ?', [first.customerId])).toEqual(
      [before],
    );
  });

  test('a version 1 of last month, a version 2 and a version 9 in one queue: two are handled in the newest form, the third is dead with its reason', async () => {
    await readyWorker({ WORKER_RETRY_DELAYS_MS: '50,50' });
    const [first, second, ninth] = [customer(), customer(), customer()];
    send('CustomerCreated', first);
    const newest = send('CustomerCreated', { ...second, language: 'de' }, uuidv7(), 2);
    const unknown = send('CustomerCreated', { of: 'a later', form: ninth.customerId }, uuidv7(), 9);
    await expect
      .poll(() => emails(second.customerId), PATIENCE)
      .toEqual([{ message_id: newest, recipient: second.email, subject: 'Willkommen', body: 'Willkommen, Zoë!' }]);
    await expect.poll(() => emails(first.customerId), PATIENCE).toMatchObject([{ body: 'Welcome, Zoë!' }]);
    for (const { customerId, email } of [first, second]) {
      await expect.poll(() => directory(customerId), PATIENCE).toEqual([{ name: 'Zoë', email, version: 1 }]);
    }
    const letters = () =>
      select('SELECT consumer, version, reason, attempts FROM dead_letters WHERE message_id = ? ORDER BY consumer', [
        unknown,
      ]);
    const reason = expect.stringContaining('ONCEBOX_UNKNOWN_MESSAGE');
    await expect.poll(letters, PATIENCE).toEqual([
      { consumer: 'customer-directory', version: 9, reason, attempts: 3 },
      { consumer: 'welcome-email', version: 9, reason, attempts: 3 },
    ]);
  });

  test('a payload that breaks its contract is a dead letter of each consumer, without effect', async () => {
    await readyWorker();
    const broken = { ...customer(), version: 'one' };
    const id = send('CustomerCreated', broken);
    const letters = () =>
      select('SELECT consumer, error_class FROM dead_letters WHERE message_id = ? ORDER BY consumer', [id]);
    await expect.poll(letters, PATIENCE).toEqual([
      { consumer: 'customer-directory', error_class: 'MessageError' },
      { consumer: 'welcome-email', error_class: 'MessageError' },
    ]);
    expect(await emails(broken.customerId)).toEqual([]);
  });
});

describe('log', () => {
  test('each message is one line with its ids, and its payload is hidden', async () => {
    const worker = await readyWorker();
    const payload = customer();
    const messageId = send('CustomerCreated', payload);
    await expect.poll(() => handlingLines(worker, messageId), PATIENCE).toHaveLength(2);
    const line = {
      level: 'info',
      messageId,
      correlationId: 'corr-1',
      traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
      msg: "Handling [CustomerCreated] - Payload: '[hidden]'",
    };
    expect(handlingLines(worker, messageId)).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ ...line, consumer: 'welcome-email' }),
        expect.objectContaining({ ...line, consumer: 'customer-directory' }),
      ]),
    );
    expect(JSON.stringify(worker.lines)).not.toContain(payload.email);
  });

  test('with LOG_PAYLOADS the payload is there as it came', async () => {
    const worker = await readyWorker({ LOG_PAYLOADS: 'on' });
    const payload = customer();
    const messageId = send('CustomerCreated', payload);
    await expect.poll(() => handlingLines(worker, messageId), PATIENCE).toHaveLength(2);
    expect(handlingLines(worker, messageId)[0]?.msg).toBe(
      `Handling [CustomerCreated] - Payload: '${JSON.stringify(payload)}'`,
    );
  });
});

describe('process', () => {
  test('SIGTERM ends it with 0 after what it has in hand, and nothing is lost or doubled', async () => {
    const worker = await readyWorker();
    const customers = Array.from({ length: 300 }, () => customer());
    const ids = customers.map((each) => send('CustomerCreated', each));
    await expect.poll(() => handlingLines(worker).length, PATIENCE).toBeGreaterThan(20);
    worker.kill('SIGTERM');
    expect(await worker.exited).toBe(0);
    await readyWorker();
    const count = async () => {
      const found = await select(
        'SELECT COUNT(*) AS n, COUNT(DISTINCT message_id) AS ids FROM emails WHERE message_id IN (?)',
        [ids],
      );
      return { n: Number(found[0]?.['n']), ids: Number(found[0]?.['ids']) };
    };
    await expect.poll(async () => (await count()).ids, PATIENCE).toBe(300);
    expect(await count()).toEqual({ n: 300, ids: 300 });
  });

  test('it waits for a database and a broker that are away, says which, is not ready, and stops when told to', async () => {
    const worker = startWorker({
      WORKER_DATABASE_URL: 'mysql://worker:secret@127.0.0.1:1/fulfilment',
      AMQP_URL: 'amqp://worker:secret@127.0.0.1:2',
    });
    await worker.said(/^Waiting for database 127\.0\.0\.1:1: ECONNREFUSED$/);
    await worker.said(/^waiting for broker 127\.0\.0\.1:2: ECONNREFUSED$/);
    expect(await worker.probe('/readyz')).toBe(503);
    expect(JSON.stringify(worker.lines)).not.toContain('secret');
    worker.kill('SIGTERM');
    expect(await worker.exited).toBe(0);
  });
});
