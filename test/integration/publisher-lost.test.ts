import type { Logger } from '@oncebox/rabbitmq';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, expect, inject, onTestFinished, test } from 'vitest';
import { createSender } from '../../packages/rabbitmq/src/sender.ts';
import { superviseConnection } from '../../packages/rabbitmq/src/supervisor.ts';
import { startProxy } from '../support/proxy.ts';
import { createVhost, type Vhost } from '../support/vhost.ts';

/** An outage must not count as a broker that allows no second channel. */

let vhost: Vhost;
beforeAll(async () => {
  vhost = await createVhost(inject('servers'));
});
afterAll(() => vhost.drop());

test('G9: after the connection was lost while a channel is opened beside, refused messages are still tried apart', async () => {
  const proxy = await startProxy(vhost.amqpUrl);
  const warnings: string[] = [];
  const logger: Logger = {
    info: () => undefined,
    warn: (_, text) => warnings.push(text),
    error: () => undefined,
  };
  const supervisor = superviseConnection({ urls: [proxy.url], name: 'lost', logger });
  const sender = createSender(supervisor, { logger });
  onTestFinished(async () => {
    await sender.close();
    await supervisor.close();
  });
  const isReady = () => expect.poll(() => sender.ready, { timeout: 20_000 }).toBe(true);
  const toMissing = (exchange: string) =>
    sender.send({
      exchange,
      routingKey: 'k',
      body: Buffer.from('{}'),
      options: { persistent: true, mandatory: true, messageId: uuidv7() },
    });

  await isReady();
  proxy.blackhole('toServer'); // the broker never hears of the spare channel
  const tried = toMissing('missing');
  proxy.cut();
  expect((await tried).kind).toBe('unknown');
  await proxy.pass();
  await expect.poll(() => sender.ready, { timeout: 20_000, interval: 1 }).toBe(false);
  await isReady();
  expect((await toMissing('missing too')).kind).toBe('returned');
  // The broker would close the channel of all for it.
  expect(warnings.filter((text) => text.includes('missing too'))).toEqual([
    expect.stringContaining('the broker refuses messages, which are tried again'),
  ]);
});
