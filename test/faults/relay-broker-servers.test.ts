import { expect, inject, it, vi } from 'vitest';
import { checkInvariants } from '../support/invariants.ts';
import { startLoad } from '../support/load.ts';
import { systemOnBroker } from '../support/own-broker.ts';

/** Each on a broker of its own, which is stopped or alarmed. */

const PATIENCE = { timeout: 60_000, interval: 50 };
/** A broker starts up to four times in one. */
vi.setConfig({ testTimeout: 300_000 });

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
