import { expect, inject, it, onTestFinished } from 'vitest';
import { deliver, newSystem } from '../support/customers.ts';
import { checkInvariants } from '../support/invariants.ts';
import { startLoad } from '../support/load.ts';
import { insertMany } from '../support/outbox-rows.ts';
import { startProxy } from '../support/proxy.ts';
import { createSystem } from '../support/system.ts';
import { record } from '../support/wire.ts';

/** What is out when the way to the broker breaks is unknown: it is sent again under the same id, and nothing is counted. */

const PATIENCE = { timeout: 60_000, interval: 50 };

it('25: an exchange that is deleted under load is declared again, and what was out for it stays pending until a queue is bound', async () => {
  const system = await newSystem();
  const [api, { relay, worker }] = [await system.api(), await deliver(system)];
  await relay.ready();
  const load = startLoad(api);
  await load.more(30);
  const channel = await system.vhost.channel();
  await channel.deleteExchange('oncebox.events');
  await relay.said(/^opening the publishing channel again: .*no exchange 'oncebox.events'/);
  await load.more(30);
  const journal = await load.stop();
  // The queues lost their bindings with the exchange, and the relay, which knows no queue, keeps what it cannot route.
  await expect
    .poll(
      async () => (await system.shop("SELECT 1 FROM outbox WHERE state = 'pending' AND attempts > 0")).length,
      PATIENCE,
    )
    .toBeGreaterThan(0);
  // Consumers bind one after another. Whoever repairs this keeps the relay still meanwhile, or the first is sent what the second misses.
  relay.kill('SIGSTOP');
  worker.kill('SIGTERM');
  await worker.exited;
  await system.worker().ready();
  await record(system.vhost.amqpUrl);
  relay.kill('SIGCONT');
  await checkInvariants(system, journal);
});

it('29: when the broker closes its connection again and again, what was out is sent again under the same id', async () => {
  const system = await newSystem();
  const [api, { relay }] = [await system.api(), await deliver(system)];
  await relay.ready();
  const load = startLoad(api);
  for (let times = 0; times < 3; times += 1) {
    await load.more(25);
    await system.vhost.closeConnections('relay');
  }
  await load.more(25);
  const journal = await load.stop();
  await checkInvariants(system, journal);
  expect(relay.lines.filter(({ msg }) => msg.startsWith('lost broker'))).toHaveLength(3);
  expect(await system.shop('SELECT 1 FROM outbox WHERE attempts > 0')).toEqual([]);
});

it('30: when no confirm comes, the connection is dropped at the deadline and the messages are sent again', async () => {
  const system = await newSystem();
  const broker = await startProxy(system.vhost.amqpUrl);
  const worker = system.worker();
  await worker.ready();
  const [api, relay] = [await system.api(), system.relay({ AMQP_URL: broker.url })];
  await relay.ready();
  const load = startLoad(api);
  await load.more(20);
  broker.blackhole('toClient'); // the broker is told, and cannot answer
  await load.more(20);
  const reasons = () => relay.lines.map(({ reason }) => reason);
  await expect.poll(reasons, PATIENCE).toContain('no confirm from the broker within 10000 ms');
  await relay.said(/^lost broker/);
  expect(await relay.probe('/livez')).toBe(200);
  expect(await relay.probe('/readyz')).toBe(503);
  await broker.pass();
  const journal = await load.stop();
  const { duplicatesOnTheWire } = await checkInvariants(system, journal);
  expect(duplicatesOnTheWire).toBeGreaterThan(0);
  expect(await system.shop('SELECT 1 FROM outbox WHERE attempts > 0')).toEqual([]);
});

it('32: a broker that reads slowly fills no memory', async () => {
  const system = await createSystem(inject('servers'));
  onTestFinished(() => system.drop());
  const channel = await system.vhost.channel();
  await channel.assertExchange('oncebox.events', 'topic', { durable: true });
  // Keeps one: what is sent here is large, and nobody reads it.
  await channel.assertQueue('last', { durable: true, arguments: { 'x-max-length': 1 } });
  await channel.bindQueue('last', 'oncebox.events', 'film.made');
  const broker = await startProxy(system.vhost.amqpUrl);
  // What is read too early, or written to a connection that takes no more, ends a process that has so little.
  const relay = system.relay({ AMQP_URL: broker.url, NODE_OPTIONS: '--max-old-space-size=48' });
  await relay.ready();
  broker.latency(10); // 256 KiB at a time
  await insertMany(system, { type: 'FilmMade', routingKey: 'film.made', rows: 700, bytes: 100_000 });
  await checkInvariants(system, { accepted: [] }, 90_000);
  relay.kill('SIGTERM');
  expect(await relay.exited).toBe(0);
});
