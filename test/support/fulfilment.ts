import type { Channel, Options } from 'amqplib';
import { createConnection } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, expect, inject, onTestFinished } from 'vitest';
import type { Line, Program } from './processes.ts';
import { createSystem, type System } from './system.ts';

/** The worker's side alone: messages as the relay would publish them, and what has become of them. A system for each file that asks. */

export const PATIENCE = { timeout: 30_000, interval: 50 };
/** Whose queues they are, too. */
export const CONSUMERS = ['customer-directory', 'welcome-email'] as const;

export let system: System;
export let channel: Channel;

export function useFulfilment(): void {
  beforeAll(async () => {
    system = await createSystem(inject('servers'));
    channel = await system.vhost.channel();
    // So that a message can be sent before the worker of its test is started.
    const declaring = await readyWorker();
    declaring.kill('SIGTERM');
    await declaring.exited;
  });
  afterAll(() => system?.drop());
}

/** A worker that consumes. Its retries are quick unless `environment` says otherwise. */
export async function readyWorker(environment: Readonly<Record<string, string>> = {}): Promise<Program> {
  const worker = startWorker(environment);
  await worker.ready();
  return worker;
}
export const startWorker = (environment: Readonly<Record<string, string>> = {}): Program =>
  system.worker({ WORKER_RETRY_DELAYS_MS: '200,200,200', ...environment });

export interface Customer {
  readonly customerId: string;
  readonly email: string;
  readonly name: string;
  readonly version: number;
}
export const newCustomer = (given: Partial<Customer> = {}): Customer => ({
  customerId: uuidv7(),
  email: `${uuidv7()}@example.com`,
  name: 'Zoë',
  version: 1,
  ...given,
});

/**
 * Publishes a CustomerCreated, to both consumers unless `queue` says which.
 *
 * @returns its id.
 */
export function send(payload: object = newCustomer(), given: Options.Publish & { queue?: string } = {}): string {
  const { queue, ...options } = given;
  const messageId = options.messageId ?? uuidv7();
  const properties = {
    messageId,
    type: 'CustomerCreated',
    persistent: true,
    headers: { schemaversion: 1 },
    ...options,
  };
  const [exchange, key] = queue === undefined ? ['oncebox.events', 'customer.created'] : ['', queue];
  channel.publish(exchange, key, Buffer.from(JSON.stringify(payload)), properties);
  return messageId;
}

export const sendMany = (count: number): string[] => Array.from({ length: count }, () => send());

/** Ids that a consumer has recorded as handled, of those given. */
export async function processed(consumer: string, ids: readonly string[]): Promise<string[]> {
  const found = await system.fulfilment(
    'SELECT CAST(message_id AS CHAR) AS id FROM processed_messages WHERE consumer = ? AND CAST(message_id AS CHAR) IN (?)',
    [consumer, ids],
  );
  return found.map((row) => String(row['id'])).sort();
}

/** The message of each e-mail, twice if it made two; of the messages given. */
export async function emails(ids: readonly string[]): Promise<string[]> {
  const found = await system.fulfilment('SELECT message_id FROM emails WHERE message_id IN (?)', [ids]);
  return found.map((row) => String(row['message_id'])).sort();
}

export const deadLetters = (consumer: string) =>
  system.fulfilment(
    'SELECT CAST(message_id AS CHAR) AS id, type, reason, attempts FROM dead_letters WHERE consumer = ? ORDER BY id',
    [consumer],
  );

/** Whoever writes to the table waits until the lock is released. */
export async function lockTable(table: string): Promise<{ release(): Promise<void> }> {
  const holder = await createConnection({ uri: system.schemas.fulfilment.adminUrl });
  await holder.query('LOCK TABLES ?? WRITE', [table]);
  // It must not outlast a test that fails.
  onTestFinished(() => holder.destroy());
  return { release: () => holder.end() };
}

/** For a row of another transaction, in the fulfilment schema. */
export async function transactionsThatWait(): Promise<number> {
  const found = await system.fulfilment(
    `SELECT 1 FROM information_schema.processlist AS p JOIN information_schema.innodb_trx AS t ON t.trx_mysql_thread_id = p.id
      WHERE p.db = ? AND t.trx_state = 'LOCK WAIT'`,
    [system.schemas.fulfilment.name],
  );
  return found.length;
}

export const handling = ({ lines }: Program, ...ids: readonly string[]): Line[] =>
  lines.filter(({ msg, messageId }) => msg.startsWith('Handling [') && ids.includes(String(messageId)));

/** Each message has been handled by both consumers and made one e-mail, and none is left in a queue. */
export async function expectOneEffectEach(ids: readonly string[], given: { deadLetters?: number } = {}): Promise<void> {
  const sorted = ids.toSorted();
  for (const consumer of CONSUMERS) {
    await expect.poll(() => processed(consumer, ids), PATIENCE).toEqual(sorted);
    await expect.poll(() => system.vhost.depth(consumer), PATIENCE).toBe(0);
    await expect.poll(() => system.vhost.depth(`${consumer}.dead`), PATIENCE).toBe(0);
  }
  expect(await emails(ids)).toEqual(sorted);
  const found = await system.fulfilment('SELECT 1 FROM dead_letters');
  expect(found).toHaveLength(given.deadLetters ?? 0);
}
