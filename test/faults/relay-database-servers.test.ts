import { expect, inject, it, onTestFinished } from 'vitest';
import { createBroker } from '../support/broker.ts';
import { newSystem } from '../support/customers.ts';
import { createDatabase } from '../support/database.ts';
import { checkInvariants } from '../support/invariants.ts';
import { startLoad } from '../support/load.ts';
import type { Program } from '../support/processes.ts';
import type { System } from '../support/system.ts';
import { record } from '../support/wire.ts';

/** Each on a server of its own, which is stopped. */

const PATIENCE = { timeout: 60_000, interval: 50 };
/** More for a long look. */
const OUTAGES = Number(process.env['ONCEBOX_FAULT_OUTAGES'] ?? 1);

const statuses = (programs: readonly Program[], path: '/livez' | '/readyz') =>
  Promise.all(programs.map((program) => program.probe(path)));

/** Messages for which an outage was taken for their own failure. */
const spent = ({ shop }: System) =>
  shop("SELECT id, attempts, state FROM outbox WHERE attempts > 0 OR state = 'parked'");

it('20: a database that turns read-only, then goes away, is waited for: alive, not ready, no restart, nothing lost', async () => {
  const database = await createDatabase();
  onTestFinished(() => database.remove());
  const system = await newSystem({ ...inject('servers'), databaseUrl: database.databaseUrl });
  const worker = system.worker();
  await worker.ready();
  const [relay, api] = [system.relay(), await system.api()];
  await relay.ready();
  const load = startLoad(api);
  await load.more(20);

  await database.readOnly(true);
  await relay.said(/^Waiting for database/);
  const { retries } = load.journal;
  await expect.poll(() => load.journal.retries, PATIENCE).toBeGreaterThan(retries + 5); // 503, and asked again
  expect(await statuses([api, relay, worker], '/livez')).toEqual([200, 200, 200]);
  await database.readOnly(false);
  await load.more(20);

  await database.stop();
  await expect.poll(() => statuses([api, relay, worker], '/readyz'), PATIENCE).toEqual([503, 503, 503]);
  expect(await statuses([api, relay, worker], '/livez')).toEqual([200, 200, 200]);
  await database.start();
  await Promise.all([api, relay, worker].map((program) => program.ready()));
  await load.more(20);

  await checkInvariants(system, await load.stop());
  expect(await spent(system)).toEqual([]);
});

it('23: while the broker is away under load no message spends an attempt, and none is parked', async () => {
  const broker = await createBroker();
  onTestFinished(() => broker.remove());
  const { amqpUrl } = broker;
  const system = await newSystem();
  const recording = await record(amqpUrl);
  await system.worker({ AMQP_URL: amqpUrl }).ready();
  const [relay, api] = [system.relay({ AMQP_URL: amqpUrl }), await system.api()];
  const load = startLoad(api);
  await load.more(20);
  for (let outage = 0; outage < OUTAGES; outage += 1) {
    await broker.stop();
    await expect.poll(() => relay.probe('/readyz'), PATIENCE).toBe(503);
    await load.more(50);
    expect(await spent(system)).toEqual([]);
    await broker.start();
    await relay.ready();
    await load.more(20);
  }
  await checkInvariants({ ...system, vhost: { amqpUrl }, recording }, await load.stop());
  expect(await spent(system)).toEqual([]);
});
