import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Channel } from 'amqplib';
import { type Connection, createConnection, type RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, afterEach, beforeAll, describe, expect, inject, test } from 'vitest';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';
import { createVhost, type Vhost } from '../support/vhost.ts';

/** The real worker, a process, against a schema and a vhost of this file's own, with the worker's own database user. */

const MAIN = join(import.meta.dirname, '../../apps/worker/src/main.ts');
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

interface Worker {
  readonly lines: readonly string[];
  readonly kill: (signal: NodeJS.Signals) => void;
  readonly exited: Promise<number | null>;
  readonly ready: () => Promise<boolean>;
}

const running: Worker[] = [];
afterEach(async () => {
  for (const worker of running.splice(0)) {
    worker.kill('SIGKILL');
    await worker.exited;
  }
});

let nextPort = 19_000 + Math.floor(Math.random() * 900);

function startWorker(environment: Record<string, string> = {}): Worker {
  const port = nextPort++;
  const { promise: exited, resolve } = Promise.withResolvers<number | null>();
  const child = execFile(
    process.execPath,
    ['--conditions=oncebox-source', MAIN],
    {
      env: {
        PATH: process.env['PATH'],
        WORKER_DATABASE_URL: schemas.fulfilment.url,
        AMQP_URL: vhost.amqpUrl,
        WORKER_OPS_PORT: String(port),
        ...environment,
      },
    },
    () => resolve(child.exitCode),
  );
  const lines: string[] = [];
  for (const stream of [child.stdout, child.stderr])
    if (stream) createInterface(stream).on('line', (line) => lines.push(line));
  const worker: Worker = {
    lines,
    exited,
    kill: (signal) => void child.kill(signal),
    ready: async () => {
      const response = await fetch(`http://127.0.0.1:${port}/readyz`).catch(() => undefined);
      return response?.status === 200;
    },
  };
  running.push(worker);
  return worker;
}

async function readyWorker(environment?: Record<string, string>): Promise<Worker> {
  const worker = startWorker(environment);
  await expect.poll(worker.ready, PATIENCE).toBe(true);
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

function send(type: 'CustomerCreated' | 'CustomerUpdated', payload: object, messageId = uuidv7()): string {
  const key = type === 'CustomerCreated' ? 'customer.created' : 'customer.updated';
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
  channel.publish('oncebox.events', key, Buffer.from(JSON.stringify(payload)), {
    messageId,
    type,
    persistent: true,
    correlationId: 'corr-1',
    headers: { schemaversion: 1, traceparent },
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
const handlingLines = ({ lines }: Worker, messageId = ''): Record<string, unknown>[] =>
  lines.filter((line) => line.includes('Handling [') && line.includes(messageId)).map((line) => JSON.parse(line));

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

  test('a payload that breaks its contract lies in the dead queue of each consumer, without effect', async () => {
    await readyWorker();
    const broken = { ...customer(), version: 'one' };
    const id = send('CustomerCreated', broken);
    for (const queue of ['welcome-email.dead', 'customer-directory.dead']) {
      await expect.poll(() => vhost.depth(queue), PATIENCE).toBe(1);
      const dead = await channel.get(queue, { noAck: true });
      expect(dead).toMatchObject({
        properties: { messageId: id, headers: { 'x-oncebox-reason': 'MessageError ONCEBOX_INVALID_PAYLOAD' } },
      });
    }
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
    expect(worker.lines.join('\n')).not.toContain(payload.email);
  });

  test('with LOG_PAYLOADS the payload is there as it came', async () => {
    const worker = await readyWorker({ LOG_PAYLOADS: 'on' });
    const payload = customer();
    const messageId = send('CustomerCreated', payload);
    await expect.poll(() => handlingLines(worker, messageId), PATIENCE).toHaveLength(2);
    expect(handlingLines(worker, messageId)[0]?.['msg']).toBe(
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
    const said = () => worker.lines.join('\n');
    await expect.poll(said, PATIENCE).toContain('Waiting for database 127.0.0.1:1: ECONNREFUSED');
    await expect.poll(said, PATIENCE).toContain('waiting for broker 127.0.0.1:2: ECONNREFUSED');
    expect(await worker.ready()).toBe(false);
    expect(said()).not.toContain('secret');
    worker.kill('SIGTERM');
    expect(await worker.exited).toBe(0);
  });

  test('a wrong setting ends it with 1 and a line that names the variable', async () => {
    const worker = startWorker({ WORKER_PREFETCH: 'many' });
    expect(await worker.exited).toBe(1);
    expect(worker.lines.join('\n')).toMatch(/WORKER_PREFETCH/);
  });
});
