import { tmpdir } from 'node:os';
import { createPool, type Pool } from '@oncebox/mysql';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { startOncebox } from '../support/oncebox.ts';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';
import { createVhost, type Vhost } from '../support/vhost.ts';

/** What `oncebox replay` refuses; what it does is in test/e2e. */

let schemas: TestSchemas;
let vhost: Vhost;
let admin: Pool;
beforeAll(async () => {
  [schemas, vhost] = await Promise.all([createSchemas(inject('servers')), createVhost(inject('servers'))]);
  admin = createPool(schemas.fulfilment.adminUrl, { connections: 1 });
  const channel = await vhost.channel();
  await channel.assertQueue('reader', { durable: true, arguments: { 'x-queue-type': 'quorum' } });
  for (const [consumer, replays] of [
    ['reader', 1],
    ['queueless', 1],
    ['mailer', 0],
  ]) {
    await admin.query("INSERT INTO consumers (consumer, type, replays) VALUES (?, 'CustomerCreated', ?)", [
      consumer,
      replays,
    ]);
  }
});
afterAll(async () => {
  await admin.end();
  await Promise.all([schemas.drop(), vhost.drop()]);
});

it.each([
  ['a consumer that nobody has registered', ['--consumer', 'nobody'], 'no consumer nobody is registered'],
  [
    'a consumer that takes no history',
    ['--consumer', 'mailer', '--force'],
    'mailer takes no history of CustomerCreated',
  ],
  ['a consumer without a queue', ['--consumer', 'queueless', '--dry-run'], 'ONCEBOX_NOT_REPLAYED'],
  ['a broker that keeps no log', ['--consumer', 'reader', '--dry-run'], 'ONCEBOX_NO_LOG'],
])('says what is wrong with %s', async (_case, args, message) => {
  const env = { WORKER_DATABASE_URL: schemas.fulfilment.url, AMQP_URL: vhost.amqpUrl };
  const ended = await startOncebox(['replay', ...args], env, tmpdir()).ended;
  expect(ended).toMatchObject({ code: 1, stdout: '' });
  expect(ended.stderr).toContain(message);
});
