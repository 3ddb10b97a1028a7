import { beforeEach, expect, inject, it, onTestFinished } from 'vitest';
import { newJournal, runClient } from '../chaos/client.ts';
import { killedSoon } from '../chaos/failpoints.ts';
import { startFleet } from '../chaos/fleet.ts';
import { checkInvariants } from '../support/invariants.ts';
import { seeded } from '../support/seeded.ts';
import { createSystem, type System } from '../support/system.ts';
import { record } from '../support/wire.ts';

/** Processes that end under load, as they are asked to and otherwise. */

const PATIENCE = { timeout: 60_000, interval: 50 };
/** 300 and more are `ONCEBOX_KILLS=300 make test-faults`: 100 of each process. */
const KILLS = Number(process.env['ONCEBOX_KILLS'] ?? 15);
const SEED = Number(process.env['ONCEBOX_SEED'] ?? Date.now() % 1_000_000);

let system: System;
beforeEach(async () => {
  const created = await createSystem(inject('servers'));
  system = created;
  onTestFinished(created.drop); // after the hook that ends the processes
});

/** Clients that work until `stop`. */
function load(url: () => string | undefined, random: () => number) {
  const journal = newJournal();
  const working = new AbortController();
  const clients = Promise.all(
    [0, 1].map((n) => runClient({ url, journal, random, name: `client-${n}`, signal: working.signal, thinkMs: 20 })),
  );
  return {
    journal,
    goesOn: async () => {
      const before = journal.accepted.size;
      await expect.poll(() => journal.accepted.size, PATIENCE).toBeGreaterThan(before + 20);
    },
    stop: async () => {
      working.abort();
      await clients;
    },
  };
}

it('49: a rolling restart by SIGTERM under load loses nothing, costs no attempt, and ends every process with 0', async () => {
  let [api, relay, worker] = [await system.api(), system.relay(), system.worker()];
  await Promise.all([relay.ready(), worker.ready()]);
  const recording = await record(system.vhost.amqpUrl);
  const { journal, goesOn, stop } = load(() => api.url, seeded(SEED));

  await goesOn();
  const olds = [api, relay, worker];
  [api, relay, worker] = [await system.api(), system.relay(), system.worker()];
  await Promise.all([relay.ready(), worker.ready()]);
  for (const old of olds) {
    old.kill('SIGTERM');
    expect(await old.exited).toBe(0);
  }
  await goesOn();
  await stop();
  await checkInvariants({ ...system, recording }, journal);
  expect(await system.shop('SELECT DISTINCT attempts FROM outbox')).toEqual([{ attempts: 0 }]);
  expect(await system.fulfilment('SELECT * FROM dead_letters')).toEqual([]);
});

it(`50: SIGKILL at ${KILLS} points of all three processes, chosen by seed ${SEED}: what is committed has one effect`, {
  timeout: 120_000 + KILLS * 15_000,
}, async () => {
  const random = seeded(SEED);
  let isOver = false;
  const fleet = startFleet({
    trio: system,
    sizes: { api: 1, relay: 1, worker: 1 },
    environment: (role) => (isOver ? {} : killedSoon(role, random)),
  });
  await fleet.ready(); // every queue is bound: the recording would hide that none is
  const recording = await record(system.vhost.amqpUrl);
  const { journal, stop } = load(() => fleet.urls()[0], random);

  await expect.poll(() => fleet.starts, { ...PATIENCE, timeout: KILLS * 15_000 }).toBeGreaterThan(KILLS + 2);
  isOver = true;
  await stop();
  await checkInvariants({ ...system, recording }, journal);
  await fleet.stop();
  // No server is away here, so nothing is excused.
  expect([...fleet.surprises, ...fleet.excused]).toEqual([]);
});
