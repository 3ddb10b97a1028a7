import type { Received, Verdict } from '@oncebox/message';
import { startConsumer } from '@oncebox/rabbitmq';
import { expect, test } from 'vitest';
import {
  connect,
  consume,
  expectSettled,
  handled,
  inboxOf,
  newName,
  PATIENCE,
  quiet,
  read,
  send,
  vhost,
} from '../support/consumers.ts';

test('it begins with one message at a time and takes many once one comes that was not delivered before', async () => {
  const name = newName();
  const gate = Promise.withResolvers<Verdict>();
  let inHand = 0;
  const hold = () => {
    inHand++;
    return gate.promise;
  };
  const consumer = await consume(name, hold, { prefetch: 20 });
  for (let i = 0; i < 30; i++) send(name);
  // The first is fresh, so the width opens while it is in hand: itself and twenty more.
  await expect.poll(() => inHand, PATIENCE).toBeGreaterThanOrEqual(20);
  gate.resolve(handled);
  await expect.poll(() => inHand, PATIENCE).toBe(30);
  await expectSettled(name, consumer);
});

test('what a crashed worker had in hand is taken one at a time', async () => {
  const name = newName();
  const setUp = await consume(name, async () => handled);
  await setUp.stop();
  for (let i = 0; i < 10; i++) send(name);
  // A process that dies with ten messages in hand: the broker sees its channel close.
  const crashing = await vhost.channel();
  let got = 0;
  await crashing.prefetch(10);
  await crashing.consume(name, () => got++);
  await expect.poll(() => got, PATIENCE).toBe(10);
  await crashing.close();

  let inHand = 0;
  let most = 0;
  const done = new Set<string>();
  const consumer = await consume(name, async ({ id }) => {
    most = Math.max(most, ++inHand);
    // The broker has sent none of the others ahead.
    await expect.poll(() => vhost.depth(name), PATIENCE).toBe(9 - done.size);
    inHand--;
    done.add(id);
    return handled;
  });
  await expect.poll(() => done.size, PATIENCE).toBe(10);
  expect(most).toBe(1);
  await expectSettled(name, consumer);
});

test('a message that crashes its worker each time ends in the dead queue, alone', async () => {
  const name = newName();
  const settings = { deliveryLimit: 3, prefetch: 10 };
  const done = new Set<string>();
  const poison: { id?: string } = {};
  const setUp = await consume(name, async () => handled, settings);
  await setUp.stop();
  poison.id = send(name);
  for (let i = 0; i < 9; i++) send(name);
  // A crash as the broker sees it: the connection is gone and nothing in hand was settled.
  for (let crashes = 0; crashes < 12 && (await vhost.depth(`${name}.dead`)) === 0; crashes++) {
    const crash = Promise.withResolvers<void>();
    const broker = connect(name);
    const handle = async ({ id }: Received): Promise<Verdict> => {
      if (id === poison.id) {
        crash.resolve();
        return new Promise(() => undefined);
      }
      done.add(id);
      return handled;
    };
    const consumer = startConsumer({
      broker,
      inbox: inboxOf(name, handle),
      logger: quiet,
      ...settings,
    });
    await Promise.race([
      crash.promise,
      expect
        .poll(async () => (await vhost.depth(`${name}.dead`)) + (done.size === 9 ? 1 : 0), PATIENCE)
        .toBeGreaterThan(0),
    ]);
    await broker.close();
    await consumer.stop();
  }
  expect((await read(`${name}.dead`)).properties.messageId).toBe(poison.id);
  await consume(
    name,
    async ({ id }) => {
      done.add(id);
      return handled;
    },
    settings,
  );
  await expect.poll(() => done.size, PATIENCE).toBe(9);
  expect(await vhost.depth(`${name}.dead`)).toBe(0);
});
