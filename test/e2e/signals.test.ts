import { afterAll, beforeAll, expect, inject, onTestFinished, test } from 'vitest';
import { createSystem, type System, send } from '../support/system.ts';

const PATIENCE = { timeout: 60_000, interval: 50 };
const CLIENTS = 4;

let system: System;
beforeAll(async () => {
  system = await createSystem(inject('servers'));
});
afterAll(() => system?.drop());

test.each(['SIGTERM', 'SIGINT'] as const)(
  '%s under load ends each process with 0; its successor goes on, and nothing is lost, doubled or counted as an attempt',
  async (signal) => {
    let [api, relay, worker] = [await system.api(), system.relay(), system.worker()];
    await Promise.all([relay.ready(), worker.ready()]);

    const accepted: string[] = [];
    const loading = new AbortController();
    onTestFinished(() => loading.abort());
    async function client(number: number): Promise<void> {
      for (let n = 0; !loading.signal.aborted; n += 1) {
        const email = `${signal.toLowerCase()}-${number}-${n}@example.com`;
        const status = await send(api, 'POST', '/customers', { email, name: 'Load' }).then(
          (answer) => answer.status,
          () => 'no connection', // the api that stops takes none
        );
        if (status === 201) accepted.push(email);
        else if (status !== 'no connection') throw new Error(`POST /customers: ${status}`);
      }
    }
    const clients = Promise.all(Array.from({ length: CLIENTS }, (_, number) => client(number)));
    const goesOn = async () => {
      const before = accepted.length;
      await expect.poll(() => accepted.length, PATIENCE).toBeGreaterThan(before + 20);
    };

    await goesOn();
    worker.kill(signal);
    expect(await worker.exited).toBe(0);
    worker = system.worker();
    await goesOn();
    relay.kill(signal);
    expect(await relay.exited).toBe(0);
    relay = system.relay();
    await goesOn();
    const old = api;
    api = await system.api();
    old.kill(signal);
    expect(await old.exited).toBe(0);
    await goesOn();
    loading.abort();
    await clients;

    // Answered with 201, committed, announced, and one effect: the same set four times.
    const like = `${signal.toLowerCase()}-%`;
    const customers = await system.shop('SELECT id, email FROM customers WHERE email LIKE ?', [like]);
    const emails = customers.map(({ email }) => String(email)).sort();
    expect(emails).toEqual(accepted.toSorted());
    const welcomed = async () => {
      const found = await system.fulfilment('SELECT recipient FROM emails WHERE recipient LIKE ?', [like]);
      return found.map(({ recipient }) => String(recipient)).sort();
    };
    const announced = () =>
      system.shop('SELECT DISTINCT state, attempts FROM outbox WHERE aggregateid IN (?)', [
        customers.map(({ id }) => String(id)),
      ]);
    await expect.poll(announced, PATIENCE).toEqual([{ state: 'published', attempts: 0 }]);
    await expect.poll(async () => (await welcomed()).length, PATIENCE).toBeGreaterThanOrEqual(emails.length);
    // A copy still to come would be in the queue, or in the worker's hands.
    await expect.poll(() => system.vhost.depth('welcome-email'), PATIENCE).toBe(0);
    worker.kill(signal);
    expect(await worker.exited).toBe(0);
    expect(await system.vhost.depth('welcome-email')).toBe(0);
    expect(await system.vhost.depth('welcome-email.dead')).toBe(0);
    expect(await welcomed()).toEqual(emails);
  },
  120_000,
);
