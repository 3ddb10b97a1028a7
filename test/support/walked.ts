import { createPool, type Pool } from '@oncebox/mysql';
import type { Channel } from 'amqplib';
import { afterAll, afterEach, beforeAll, beforeEach, inject } from 'vitest';
import { STEPS_TABLE } from './ordered.ts';
import { createSchemas, type TestSchemas } from './schemas.ts';
import { createVhost, type Vhost } from './vhost.ts';

/**
 * What the tests of consumers that write steps share; each file that imports it has schemas and a
 * vhost of its own.
 */

export let schemas: TestSchemas;
export let vhost: Vhost;
export let channel: Channel;
/** As the administrator. */
export let pool: Pool;
beforeAll(async () => {
  [schemas, vhost] = await Promise.all([createSchemas(inject('servers')), createVhost(inject('servers'))]);
  channel = await vhost.channel();
  pool = createPool(schemas.fulfilment.adminUrl, { connections: 10 });
  await pool.query(STEPS_TABLE);
});
afterAll(async () => {
  await pool.end();
  await Promise.all([schemas.drop(), vhost.drop()]);
});
beforeEach(async () => {
  for (const table of ['steps', 'held_messages', 'held_keys', 'dead_letters'])
    await pool.query('DELETE FROM ??', [table]);
});

/** Stopped after each test, in this order. */
export const started: { stop(): Promise<void> }[] = [];
afterEach(async () => {
  for (const each of started.splice(0)) await each.stop();
});
