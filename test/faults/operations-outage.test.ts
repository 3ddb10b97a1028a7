import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { checkInvariants } from '../support/invariants.ts';
import { startProxy } from '../support/proxy.ts';
import { createSystem, postCustomer, type System } from '../support/system.ts';
import { record } from '../support/wire.ts';

const PATIENCE = { timeout: 60_000, interval: 50 };

let system: System;
beforeAll(async () => {
  system = await createSystem(inject('servers'));
});
afterAll(() => system?.drop());

it('51: while every server is away, first gone and then silent, the processes stay alive, and the same ones go on afterwards', async () => {
  const [shop, fulfilment, broker] = await Promise.all([
    startProxy(system.schemas.shop.url),
    startProxy(system.schemas.fulfilment.url),
    startProxy(system.vhost.amqpUrl),
  ]);
  const proxies = [shop, fulfilment, broker];
  const relayUrl = new URL(system.schemas.relayUrls.split(',')[0] ?? '');
  relayUrl.host = shop.address;
  const [api, relay, worker] = [
    await system.api({ API_DATABASE_URL: shop.url }),
    system.relay({ RELAY_DATABASE_URLS: relayUrl.href, AMQP_URL: broker.url }),
    system.worker({ WORKER_DATABASE_URL: fulfilment.url, AMQP_URL: broker.url }),
  ];
  const programs = [api, relay, worker];
  const probes = (path: '/livez' | '/readyz') => Promise.all(programs.map((program) => program.probe(path)));
  await expect.poll(() => probes('/readyz'), PATIENCE).toEqual([200, 200, 200]);
  const recording = await record(system.vhost.amqpUrl);
  const before = await postCustomer(api, 'before');

  for (const outage of ['refuse', 'blackhole'] as const) {
    for (const proxy of proxies) {
      if (outage === 'refuse') await proxy.refuse();
      else proxy.blackhole('toServer', 'toClient');
    }
    // Looked at until all are unready for the outage; alive each time.
    await expect
      .poll(async () => {
        expect(await probes('/livez')).toEqual([200, 200, 200]);
        return probes('/readyz');
      }, PATIENCE)
      .toEqual([503, 503, 503]);
    for (const proxy of proxies) {
      if (outage === 'blackhole') proxy.cut();
      await proxy.pass();
    }
    await expect.poll(() => probes('/readyz'), PATIENCE).toEqual([200, 200, 200]);
  }
  const after = await postCustomer(api, 'after');
  await checkInvariants({ ...system, recording }, { accepted: [before, after] });
  for (const program of programs) program.kill('SIGTERM');
  expect(await Promise.all(programs.map(({ exited }) => exited))).toEqual([0, 0, 0]);
});
