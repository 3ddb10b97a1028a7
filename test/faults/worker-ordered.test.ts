import type { Channel } from 'amqplib';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { STEPS_TABLE, sendStep } from '../support/ordered.ts';
import { type Program, start } from '../support/processes.ts';
import { createSystem, type System } from '../support/system.ts';

/** An ordered consumer in several processes that die and join, with a handler that fails at random. */

const PATIENCE = { timeout: 90_000, interval: 50 };
const WALKS = Array.from({ length: 12 }, (_, index) => `walk-${index}`);

let system: System;
let channel: Channel;
beforeAll(async () => {
  system = await createSystem(inject('servers'));
  channel = await system.vhost.channel();
  await system.fulfilment(STEPS_TABLE);
});
afterAll(() => system?.drop());

const startWorker = (): Program =>
  start('test/support/ordered-worker.ts', {
    // Its own table is not among those that the worker's user is granted.
    WORKER_DATABASE_URL: system.schemas.fulfilment.adminUrl,
    AMQP_URL: system.vhost.amqpUrl,
    FAILS: '0.1',
  });

async function steps(): Promise<number> {
  const [row] = await system.fulfilment('SELECT COUNT(*) AS n FROM steps');
  return Number(row?.['n']);
}
const reach = (count: number) => expect.poll(steps, PATIENCE).toBeGreaterThanOrEqual(count);

it('each key takes effect in its order and once, while three workers die and join and one handling in ten fails', async () => {
  const [first, second, third] = [startWorker(), startWorker(), startWorker()];
  await first.said(/^consuming$/);
  const STEPS = 10;
  const send = (from: number): void => {
    for (let n = from; n < from + STEPS; n++) for (const walk of WALKS) sendStep(channel, walk, n);
  };
  send(0);
  await reach(20);
  first.kill('SIGKILL');
  await reach(45);
  second.kill('SIGTERM');
  const fourth = startWorker();
  await reach(70);
  third.kill('SIGSTOP'); // its channel stays open, and its transactions with it, until it goes on
  const fifth = startWorker();
  send(STEPS);
  await fourth.said(/^consuming$/);
  third.kill('SIGCONT');
  await reach(150);
  fourth.kill('SIGKILL');
  await fifth.said(/^consuming$/);
  const expected = WALKS.length * STEPS * 2;
  await expect.poll(steps, PATIENCE).toBe(expected);

  const rows = await system.fulfilment('SELECT walk, n FROM steps ORDER BY seq');
  const inOrder = Array.from({ length: STEPS * 2 }, (_, n) => n);
  for (const walk of WALKS) {
    expect(rows.filter((row) => row['walk'] === walk).map((row) => Number(row['n']))).toEqual(inOrder);
  }
  // And nothing is left, or given up.
  for (const table of ['held_messages', 'held_keys']) {
    await expect.poll(() => system.fulfilment(`SELECT * FROM ${table}`), PATIENCE).toEqual([]);
  }
  expect(await system.fulfilment('SELECT 1 FROM dead_letters')).toEqual([]);
  const failures = [first, second, third, fourth, fifth].flatMap(({ lines }) =>
    lines.filter(({ msg }) => /^handling (failed|a held message failed)/.test(msg)),
  );
  expect(failures.length).toBeGreaterThan(expected / 50); // they did fail
});
