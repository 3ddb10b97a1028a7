import { expect, inject, it, onTestFinished, vi } from 'vitest';
import { newSystem } from '../support/customers.ts';
import { createDatabase } from '../support/database.ts';
import { checkInvariants } from '../support/invariants.ts';
import { startLoad } from '../support/load.ts';
import { systemOnBroker } from '../support/own-broker.ts';

/** A server starts twice. */
vi.setConfig({ testTimeout: 300_000 });

it('43: while its database is away a worker takes nothing from its queues, and counts nothing as a failure', async () => {
  const database = await createDatabase();
  onTestFinished(() => database.remove());
  const away = await newSystem({ ...inject('servers'), databaseUrl: database.databaseUrl });
  // Only the worker's database is stopped: messages keep coming.
  const here = await newSystem();
  const settings = { AMQP_URL: here.vhost.amqpUrl };
  // A single failure that counted would be a dead letter within a second.
  const worker = away.worker({ ...settings, WORKER_RETRY_DELAYS_MS: '100' });
  await worker.ready();
  const relay = here.relay();
  await relay.ready();
  const load = startLoad(await here.api(), { clients: 2 });
  await load.more(20);
  await database.stop();
  const said = (start: string) => worker.lines.filter(({ msg }) => msg.startsWith(start));
  // Each of the two that these messages are for notices by the next one that it handles.
  await expect.poll(() => said('consuming pauses').length, { timeout: 60_000 }).toBe(2);
  expect(await worker.probe('/livez')).toBe(200);
  expect(await worker.probe('/readyz')).toBe(503);
  const before = said('Handling [').length;
  await load.more(30);
  expect(said('Handling [')).toHaveLength(before);
  expect(await here.vhost.depth('welcome-email')).toBeGreaterThan(0);
  await database.start();
  await worker.ready();
  await load.more(20);
  await checkInvariants({ ...here, fulfilment: away.fulfilment }, await load.stop());
  worker.kill('SIGTERM');
  expect(await worker.exited).toBe(0); // the same process all the while
});

it('44: deliveries in the hands of a worker while the broker restarts are acknowledged to nobody, and come again to a rebuilt consumer', async () => {
  const { broker, settings, ...system } = await systemOnBroker();
  // With others beside it in hand, it stops itself between its work and the commit.
  const worker = system.worker({ ...settings, ONCEBOX_FAILPOINTS: 'inbox:handled=stop@10' });
  const load = startLoad(await system.api(), { clients: 2 });
  await worker.ready();
  await load.more(40);
  const journal = await load.stop();
  const relay = system.relay(settings);
  await worker.said(/^failpoint/);
  await relay.said(/^Published messages/);
  await broker.stop();
  await broker.start();
  await worker.resume();
  await checkInvariants(system, journal);
  expect(worker.lines.filter(({ msg }) => msg === 'consuming').length).toBeGreaterThanOrEqual(4); // two consumers, twice
  worker.kill('SIGTERM');
  expect(await worker.exited).toBe(0);
});
