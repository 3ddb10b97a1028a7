import { expect, inject, it, onTestFinished, vi } from 'vitest';
import { type Broker, createBroker } from '../support/broker.ts';
import { newSystem, type RecordedSystem } from '../support/customers.ts';
import { checkInvariants } from '../support/invariants.ts';
import { startLoad } from '../support/load.ts';
import { record } from '../support/wire.ts';

/** Each on a broker of its own, which is stopped or alarmed. */

const PATIENCE = { timeout: 60_000, interval: 50 };
/** A broker starts up to four times in one. */
vi.setConfig({ testTimeout: 300_000 });

interface OnBroker extends RecordedSystem {
  readonly broker: Broker;
  /** Of relay and worker. */
  readonly settings: { readonly AMQP_URL: string };
}

async function systemOnBroker(): Promise<OnBroker> {
  const broker = await createBroker();
  onTestFinished(() => broker.remove());
  const { amqpUrl } = broker;
  const system = await newSystem();
  const vhost = { ...system.vhost, amqpUrl };
  return { ...system, vhost, broker, settings: { AMQP_URL: amqpUrl }, recording: await record(amqpUrl) };
}

it('31: while the broker blocks publishers nothing is claimed or counted, and the relay is alive and not ready', async () => {
  const { broker, settings, ...system } = await systemOnBroker();
  // Others publish to a given broker, too, and no proxy can say in its stead what an alarm says.
  if (inject('source') === 'given') return expect(broker.alarm(true)).rejects.toThrow('given broker');
  const worker = system.worker(settings);
  await worker.ready();
  const relay = system.relay(settings);
  await relay.ready();
  const load = startLoad(await system.api(), { clients: 2 });
  await load.more(20);
  await broker.alarm(true);
  await relay.said(/^the broker blocks publishers/);
  expect(await relay.probe('/readyz')).toBe(503);
  expect(await relay.probe('/livez')).toBe(200);
  const waiting = async () => (await system.shop("SELECT id FROM outbox WHERE state = 'pending' ORDER BY seq")).length;
  const before = await waiting();
  await load.more(20);
  expect(await waiting()).toBeGreaterThanOrEqual(before + 20);
  const idle = () => system.shop('SELECT 1 FROM outbox_partition FOR UPDATE NOWAIT');
  await expect
    .poll(
      () =>
        idle().then(
          (rows) => rows.length,
          () => 0,
        ),
      PATIENCE,
    )
    .toBe(16); // nobody holds a partition
  expect(await system.shop('SELECT 1 FROM outbox WHERE attempts > 0')).toEqual([]);
  await broker.alarm(false);
  await relay.ready();
  await load.more(20);
  await checkInvariants(system, await load.stop());
});

it('33: a broker that is restarted three times under load is reconnected to by the same processes, and nothing is lost', async () => {
  const { broker, settings, ...system } = await systemOnBroker();
  const worker = system.worker(settings);
  await worker.ready();
  const relay = system.relay(settings);
  await relay.ready();
  const load = startLoad(await system.api(), { clients: 2 });
  for (let times = 1; times <= 3; times += 1) {
    await load.more(20);
    await broker.stop();
    await load.more(20);
    await broker.start();
    await Promise.all([relay.ready(), worker.ready()]);
  }
  await checkInvariants(system, await load.stop());
  expect(await system.shop("SELECT 1 FROM outbox WHERE attempts > 0 OR state = 'parked'")).toEqual([]);
  for (const program of [relay, worker]) {
    expect(program.lines.filter(({ msg }) => msg.startsWith('lost broker')).length).toBeGreaterThanOrEqual(3);
    program.kill('SIGTERM');
    expect(await program.exited).toBe(0); // it had not ended before
  }
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
  worker.kill('SIGCONT');
  await checkInvariants(system, journal);
  expect(worker.lines.filter(({ msg }) => msg === 'consuming').length).toBeGreaterThanOrEqual(4); // two consumers, twice
  worker.kill('SIGTERM');
  expect(await worker.exited).toBe(0);
});
