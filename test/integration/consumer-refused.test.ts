import { connectBroker, type Logger } from '@oncebox/rabbitmq';
import { expect, onTestFinished, test } from 'vitest';
import { channel, consume, handled, newName, PATIENCE, quiet, send, start, vhost } from '../support/consumers.ts';

test('G11: consumers whose queue or binding is refused slow no other of their process, and are tried again', async () => {
  const [good, forbidden, secret, mismatched] = [newName(), newName(), newName(), newName()];
  await channel.assertQueue(mismatched, { durable: true }); // not a quorum queue
  await channel.assertExchange('oncebox.events', 'topic', { durable: true }); // or RabbitMQ 4.3 takes no topic permission
  const rights = { configure: `^(?!${forbidden})`, write: '.*', read: '.*' };
  const topics = { exchange: 'oncebox.events', write: '.*', read: `^(?!${secret})` };
  const url = await vhost.userWith(rights, { topics });
  const broker = connectBroker({ urls: [url], name: good, logger: quiet });
  onTestFinished(() => broker.close());
  const refusals: string[] = [];
  const logger: Logger = {
    ...quiet,
    warn: (_, text) => void (text.startsWith('not consuming') && refusals.push(text)),
  };
  const late = new Set<string>();
  for (const name of [forbidden, secret, mismatched]) {
    start(name, async () => late.add(name) && handled, { broker, logger });
  }
  const seen = new Set<string>();
  await consume(good, async ({ id }) => seen.add(id) && handled, { broker, logger });
  for (let round = 0; round < 5; round++) {
    const sent = Array.from({ length: 100 }, () => send(good));
    await expect.poll(() => sent.filter((id) => !seen.has(id)), PATIENCE).toEqual([]);
  }
  // Enough for the pauses to have begun to grow, and no hot loop: a channel is opened and closed
  // again in a millisecond or two.
  await expect.poll(() => refusals.length, PATIENCE).toBeGreaterThan(9);
  expect(refusals.length).toBeLessThan(100);
  expect(refusals).toContainEqual(expect.stringContaining(`queue '${forbidden}`));
  expect(refusals).toContainEqual(expect.stringContaining(`topic '${secret}'`));
  expect(refusals).toContainEqual(expect.stringContaining(`The queue ${mismatched} exists with other properties`));

  await channel.deleteQueue(mismatched);
  await expect.poll(() => send(mismatched) && [...late], PATIENCE).toEqual([mismatched]);
});
