import { once } from 'node:events';
import { connect as connectTcp, createServer } from 'node:net';
import type { Received, Verdict } from '@oncebox/message';
import { connectBroker } from '@oncebox/rabbitmq';
import { expect, test } from 'vitest';
import {
  channel,
  consume,
  expectSettled,
  handled,
  newName,
  OrderError,
  PATIENCE,
  quiet,
  read,
  send,
  start,
  started,
  vhost,
} from '../support/consumers.ts';

test('it consumes again after the broker has closed its connections, and drops the acknowledgement that came too late', async () => {
  const name = newName();
  const gate = Promise.withResolvers<Verdict>();
  const deliveries: string[] = [];
  const handle = async ({ id }: Received): Promise<Verdict> => {
    deliveries.push(id);
    return deliveries.length === 1 ? gate.promise : handled;
  };
  const consumer = await consume(name, handle);
  const id = send(name);
  await expect.poll(() => deliveries.length, PATIENCE).toBe(1);
  await vhost.closeConnections(`${name} consuming`);
  await expect.poll(() => deliveries, PATIENCE).toEqual([id, id]);
  gate.resolve(handled);
  const next = send(name);
  await expect.poll(() => deliveries, PATIENCE).toEqual([id, id, next]);
  await expectSettled(name, consumer);
});

test('a connection that breaks while it is being tried is made again', async () => {
  const { hostname: host, port } = new URL(vhost.amqpUrl);
  const channelClose = Buffer.from([0, 20, 0, 40]); // class and method of the end of the channel by which a connection is tried
  let broken = 0;
  const proxy = createServer((client) => {
    const server = connectTcp({ host, port: Number(port) });
    for (const socket of [client, server]) socket.on('error', () => undefined);
    server.pipe(client);
    client.on('data', (chunk) => {
      if (broken === 0 && chunk.includes(channelClose)) {
        broken++;
        client.resetAndDestroy();
      } else server.write(chunk);
    });
    client.on('close', () => server.destroy());
  });
  await once(proxy.listen(0, '127.0.0.1'), 'listening');
  const address = proxy.address();
  const url = new URL(vhost.amqpUrl);
  url.host = `127.0.0.1:${typeof address === 'object' ? address?.port : ''}`;
  const broker = connectBroker({ urls: [url.href], name: newName(), logger: quiet });
  started.push({ stop: () => broker.close() });
  await expect.poll(() => [broker.consuming.state(), broker.sender.ready], PATIENCE).toEqual(['connected', true]);
  expect(broken).toBe(1);
  await broker.close();
  proxy.close();
});

test('it declares its queue and consumes again after an operator has deleted it', async () => {
  const name = newName();
  const seen: string[] = [];
  await consume(name, async ({ id }) => {
    seen.push(id);
    return handled;
  });
  await channel.deleteQueue(name);
  // Nothing is bound until the queue is there again, so these are gone until one arrives.
  const sent = new Set<string>();
  await expect.poll(() => sent.add(send(name)) && seen.length, PATIENCE).toBeGreaterThan(0);
  expect(sent).toContain(seen[0]);
});

test('while what the handlers stand on is away nothing is consumed or counted, and afterwards everything is handled', async () => {
  const name = newName();
  let away = true;
  let probes = 0;
  let refused = 0;
  const done: string[] = [];
  const handle = async ({ id }: Received): Promise<Verdict> => {
    if (away) {
      refused++;
      return { kind: 'unavailable', error: new OrderError('away') };
    }
    done.push(id);
    return handled;
  };
  const probe = async () => {
    probes++;
    if (away) throw new OrderError('away');
  };
  const consumer = start(name, handle, { probe, retryDelaysMs: [] });
  await expect.poll(() => probes, PATIENCE).toBeGreaterThan(2);
  expect(consumer.consuming).toBe(false);
  away = false;
  await expect.poll(() => consumer.consuming, PATIENCE).toBe(true);

  away = true;
  const first = send(name);
  await expect.poll(() => refused, PATIENCE).toBe(1);
  await expect.poll(() => consumer.consuming, PATIENCE).toBe(false);
  const later = [send(name), send(name)];
  await expect.poll(() => vhost.depth(name), PATIENCE).toBe(2);
  const before = probes;
  await expect.poll(() => probes, PATIENCE).toBeGreaterThan(before + 2);
  expect(refused).toBe(1);
  away = false;
  await expect.poll(() => new Set(done), PATIENCE).toEqual(new Set([first, ...later]));
  await expectSettled(name, consumer);
  expect(await vhost.depth(`${name}.dead`)).toBe(0);
});

test('a stop during an outage gives back what is in hand', async () => {
  const name = newName();
  let refused = 0;
  let up = true;
  const handle = async (): Promise<Verdict> => {
    refused++;
    up = false;
    return { kind: 'unavailable', error: new OrderError('away') };
  };
  const probe = async () => {
    if (!up) throw new OrderError('away');
  };
  const consumer = await consume(name, handle, { probe });
  send(name);
  await expect.poll(() => refused, PATIENCE).toBe(1);
  await consumer.stop();
  expect(await vhost.depth(name)).toBe(1);
});

test('an outage that only one message meets is a failure of that message, and stops no other', async () => {
  const name = newName();
  const done: string[] = [];
  const slow: { id?: string } = {};
  const handle = async ({ id }: Received): Promise<Verdict> => {
    if (id === slow.id) return { kind: 'unavailable', error: new OrderError('time-out') };
    done.push(id);
    return handled;
  };
  const consumer = await consume(name, handle, { retryDelaysMs: [] });
  slow.id = send(name);
  const other = send(name);
  await expect.poll(() => done, PATIENCE).toEqual([other]);
  expect((await read(`${name}.dead`)).properties.messageId).toBe(slow.id);
  await expectSettled(name, consumer);
});

test('queues that exist with other settings are named in an error that says what to do, and waited for', async () => {
  const name = newName();
  const lines: string[] = [];
  const keep = (_fields: object, text: string): void => void lines.push(text);
  await channel.assertQueue(`${name}.dead`, { arguments: { 'x-queue-type': 'quorum', 'x-max-length': 3 } });
  const consumer = start(name, async () => handled, { logger: { info: keep, warn: keep, error: keep } });
  await expect
    .poll(() => lines.join('\n'), PATIENCE)
    .toMatch(`The queue ${name}.dead exists with other properties than are declared here`);
  await channel.deleteQueue(`${name}.dead`);
  await expect.poll(() => consumer.consuming, PATIENCE).toBe(true);
});
