import { createInbox, defineConsumer, on } from '@oncebox/inbox';
import { defineMessage, type Inbox } from '@oncebox/message';
import { createPool, type Pool } from '@oncebox/mysql';
import type { Consumer } from '@oncebox/rabbitmq';
import type { RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, expect, inject } from 'vitest';
import { z } from 'zod';
import { consume, OrderError, PATIENCE, type Settings, send } from './consumers.ts';
import { createSchemas, type TestSchemas } from './schemas.ts';

/** Consumers with the inbox's own store of dead letters, as the worker's database user; each file that imports it has a schema of its own. */

export let schemas: TestSchemas;
export let pool: Pool;
beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  pool = createPool(schemas.fulfilment.url, { connections: 10 });
});
afterAll(async () => {
  await pool.end();
  await schemas.drop();
});

export type Handle = (message: { readonly id: string; readonly routingKey: string }) => Promise<void>;

/** What a consumer of that name handles in these tests. */
export const checkedBy = (name: string) =>
  defineMessage({
    type: 'Checked',
    version: 1,
    aggregateType: 'thing',
    aggregateId: () => 'x',
    routingKey: `${name}.checked`,
    payload: z.strictObject({ a: z.int().optional(), people: z.record(z.string(), z.int()).optional() }),
  });

/** The inbox of a consumer of `Checked` v1. */
export const inboxFor = (name: string, handle: Handle, database: Pool = pool): Inbox => {
  const handlers = [on(checkedBy(name), { handle: (_tx, message) => handle(message) })];
  return createInbox(database, defineConsumer({ name, handlers, retryDelaysMs: [50] }));
};

export const consumeWith = (inbox: Inbox, settings: Settings = {}): Promise<Consumer> =>
  consume(inbox.name, inbox.process, { ...inbox, replayPollMs: 50, ...settings });

export const publish = (name: string, given: Parameters<typeof send>[1] = {}, body = '{}'): string =>
  send(`${name}.checked`, { type: 'Checked', ...given }, body);

export async function letters(consumer: string): Promise<RowDataPacket[]> {
  const [rows] = await pool.query<RowDataPacket[]>(
    'SELECT *, CAST(message_id AS CHAR) AS message FROM dead_letters WHERE consumer = ? ORDER BY id',
    [consumer],
  );
  return rows;
}

export async function letterOf(consumer: string): Promise<RowDataPacket> {
  await expect.poll(() => letters(consumer), PATIENCE).toHaveLength(1);
  const [row] = await letters(consumer);
  if (row === undefined) throw new Error('gone again');
  return row;
}

export const fail = async (): Promise<never> => {
  throw new OrderError('someone@example.org has no order');
};
export const states = async (consumer: string) => (await letters(consumer)).map((row) => row['state']);
export const markAll = (consumer: string) =>
  pool.query("UPDATE dead_letters SET state = 'replay' WHERE consumer = ?", [consumer]);

export const storeOf = ({ deadLetters }: Inbox) => deadLetters ?? expect.fail();
