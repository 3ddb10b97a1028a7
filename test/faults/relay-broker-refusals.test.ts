import type { Channel, ConsumeMessage } from 'amqplib';
import { expect, inject, it, onTestFinished } from 'vitest';
import { checkInvariants } from '../support/invariants.ts';
import { startLoad } from '../support/load.ts';
import { insertMany, insertSteps } from '../support/outbox-rows.ts';
import { createSystem, type System } from '../support/system.ts';
import { record } from '../support/wire.ts';

/** Messages that the broker returns or refuses: they wait, their keys behind them, and nothing else does. */

const PATIENCE = { timeout: 60_000, interval: 50 };

/** Without a recording, which would be a queue for everything. */
async function systemWithoutQueues(): Promise<System> {
  const system = await createSystem(inject('servers'));
  onTestFinished(() => system.drop());
  return system;
}

it('24: what no queue is bound for stays pending, and is sent when one is', async () => {
  const system = await systemWithoutQueues();
  const relay = system.relay();
  const load = startLoad(await system.api());
  await load.more(30);
  const journal = await load.stop();
  const heads = () =>
    system.shop(
      "SELECT state, held, MIN(attempts) > 0 AS tried FROM outbox WHERE type = 'CustomerCreated' GROUP BY state, held",
    );
  await expect.poll(heads, PATIENCE).toEqual([{ state: 'pending', held: 1, tried: 1 }]);
  expect(relay.lines.filter(({ msg }) => msg.startsWith('Published'))).toEqual([]);
  const errors = await system.shop('SELECT DISTINCT last_error FROM outbox WHERE attempts > 0');
  expect(errors).toEqual([{ last_error: expect.stringMatching(/^returned: no queue is bound/) }]);
  // Of the bindings that are made now one is the first, and what it takes is not sent to the next.
  relay.kill('SIGSTOP');
  await system.worker().ready();
  const recording = await record(system.vhost.amqpUrl);
  relay.kill('SIGCONT');
  await checkInvariants({ ...system, recording }, journal);
});

it('26: behind a message that was nacked or returned its key waits, in order, and other keys flow', async () => {
  const system = await systemWithoutQueues();
  const channel = await system.vhost.channel();
  await channel.assertExchange('oncebox.events', 'topic', { durable: true });
  const seen: string[] = [];
  const read = (queue: string) => channel.consume(queue, (message) => void seen.push(stepOf(message)), { noAck: true });
  const declare = async (queue: string, settings: object = {}) => {
    await channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum', ...settings } });
    await channel.bindQueue(queue, 'oncebox.events', queue);
  };
  await declare('full', { 'x-max-length': 5, 'x-overflow': 'reject-publish' });
  await declare('open');
  await read('open');

  const steps = Array.from({ length: 40 }, (_, index) => index + 1);
  await insertSteps(system, [
    ...steps.map((step) => ({ key: 'hot', step, routingKey: 'full' })),
    { key: 'early', step: 1, routingKey: 'unbound' },
    ...steps.slice(1).map((step) => ({ key: 'early', step, routingKey: 'open' })),
    ...steps.flatMap((step) => ['x', 'y', 'z'].map((key) => ({ key, step, routingKey: 'open' }))),
  ]);
  system.relay();
  const waiting = async (key: string) => {
    const [row] = await system.shop(
      "SELECT COUNT(*) AS n, MAX(attempts) AS attempts FROM outbox WHERE aggregateid = ? AND state = 'pending'",
      [key],
    );
    return { rows: Number(row?.['n']), wasRefused: Number(row?.['attempts']) > 0 };
  };
  const ofKey = (key: string) => seen.filter((each) => each.startsWith(`${key} `));
  const inOrder = (key: string) => steps.map((step) => `${key} ${step}`);
  for (const key of ['x', 'y', 'z']) await expect.poll(() => ofKey(key), PATIENCE).toEqual(inOrder(key));
  await expect.poll(() => waiting('early'), PATIENCE).toEqual({ rows: 40, wasRefused: true });
  await expect.poll(() => waiting('hot'), PATIENCE).toMatchObject({ wasRefused: true });
  expect((await waiting('hot')).rows).toBeGreaterThan(20);
  expect(ofKey('early')).toEqual([]);

  await read('full');
  await channel.bindQueue('open', 'oncebox.events', 'unbound');
  for (const key of ['hot', 'early']) await expect.poll(() => ofKey(key), PATIENCE).toEqual(inOrder(key));
  await checkInvariants(system, { accepted: [] });
});

function stepOf(message: ConsumeMessage | null): string {
  if (message === null) throw new Error('The broker ended the subscription');
  const { key, step } = JSON.parse(message.content.toString());
  return `${key} ${step}`;
}

it('27: while many thousands wait that no queue is bound for, the rest flows', async () => {
  const count = Number(process.env['ONCEBOX_FAULT_ROWS'] ?? 20_000);
  const live = 2_000;
  const patience = { timeout: 60_000 + count, interval: 50 };
  const system = await systemWithoutQueues();
  const channel = await system.vhost.channel();
  await bindEmptyQueue(channel, 'live');
  const relay = system.relay({ RELAY_POLL_MS: '20' });
  await relay.ready();
  const isSent = async (type: string) => {
    const [row] = await system.shop("SELECT COUNT(*) AS n FROM outbox WHERE type = ? AND state <> 'published'", [type]);
    return Number(row?.['n']) === 0;
  };
  const flow = async (type: string) => {
    await insertMany(system, { type, routingKey: 'live', rows: live });
    const began = performance.now();
    await expect.poll(() => isSent(type), patience).toBe(true);
    return Math.round((live * 1_000) / (performance.now() - began));
  };
  const alone = await flow('Before');
  await insertMany(system, { type: 'Lost', routingKey: 'nobody.listens', rows: count });
  const tried = () => system.shop("SELECT COUNT(*) AS n FROM outbox WHERE type = 'Lost' AND attempts > 0");
  await expect.poll(async () => Number((await tried())[0]?.['n']), patience).toBe(count);
  const beside = await flow('Beside');
  const [left] = await system.shop("SELECT COUNT(*) AS n FROM outbox WHERE type = 'Lost' AND state = 'pending'");
  expect(Number(left?.['n'])).toBe(count);
  console.log(`${live} messages: ${alone}/s alone, ${beside}/s beside ${count} that wait`);

  await bindEmptyQueue(channel, 'nobody.listens');
  // What an operator does who has bound the queue and would rather not wait for the backoff.
  await system.shop('UPDATE outbox_waiting SET due_at = UTC_TIMESTAMP(6)');
  await expect.poll(() => isSent('Lost'), patience).toBe(true);
  await checkInvariants(system, { accepted: [] });
}, 1_200_000);

/** Keeps one message: these are many, and nobody reads them. */
async function bindEmptyQueue(channel: Channel, key: string): Promise<void> {
  await channel.assertExchange('oncebox.events', 'topic', { durable: true });
  await channel.assertQueue(key, { durable: true, arguments: { 'x-max-length': 1 } });
  await channel.bindQueue(key, 'oncebox.events', key);
}
