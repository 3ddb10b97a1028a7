import type { Received, Verdict } from '@oncebox/message';
import { describe, expect, test } from 'vitest';
import {
  channel,
  connect,
  consume,
  expectSettled,
  handled,
  newName,
  OrderError,
  PATIENCE,
  read,
  send,
  start,
  vhost,
} from '../support/consumers.ts';

test('a message is acknowledged when its handler is done', async () => {
  const name = newName();
  const gate = Promise.withResolvers<Verdict>();
  const seen: Received[] = [];
  const consumer = await consume(name, (message) => {
    seen.push(message);
    return gate.promise;
  });
  const id = send(name, { correlationId: 'corr' }, '{"a":1.0}');
  await expect.poll(() => seen.length, PATIENCE).toBe(1);
  expect(seen[0]).toMatchObject({ id, type: 'T', version: 1, payload: '{"a":1.0}', routingKey: name });
  const stopping = consumer.stop();
  gate.resolve(handled);
  await stopping;
  expect(await vhost.depth(name)).toBe(0);
});

test('acknowledging later messages leaves an earlier one that is still in hand alone', async () => {
  const name = newName();
  const gate = Promise.withResolvers<Verdict>();
  const seen: string[] = [];
  const handle = async ({ id }: Received): Promise<Verdict> => {
    seen.push(id);
    return id === slow ? gate.promise : handled;
  };
  const consumer = await consume(name, handle, { prefetch: 4 });
  const slow = send(name);
  for (let i = 0; i < 9; i++) send(name);
  await expect.poll(() => seen.length, PATIENCE).toBe(10);
  const stopping = consumer.stop();
  gate.resolve({ kind: 'unavailable', error: new Error('away') });
  await stopping;
  expect(await vhost.depth(name)).toBe(1);
  expect((await read(name)).properties.messageId).toBe(slow);
});

test('what is settled while its connection is being closed goes back, and nothing breaks', async () => {
  const name = newName();
  const gate = Promise.withResolvers<Verdict>();
  let seen = 0;
  const broker = connect(name);
  await consume(
    name,
    () => {
      seen += 1;
      return gate.promise;
    },
    { broker },
  );
  const id = send(name);
  await expect.poll(() => seen, PATIENCE).toBe(1);
  const closing = broker.close();
  gate.resolve(handled);
  await closing;
  expect((await read(name)).properties.messageId).toBe(id);
});

test('stop waits for the handlers of what is in hand, so nothing is handled twice', async () => {
  const name = newName();
  const counts = new Map<string, number>();
  const gate = Promise.withResolvers<void>();
  const handle = async ({ id }: Received) => {
    counts.set(id, (counts.get(id) ?? 0) + 1);
    await gate.promise;
    return handled;
  };
  const first = await consume(name, handle, { prefetch: 50 });
  for (let i = 0; i < 200; i++) send(name);
  await expect.poll(() => counts.size, PATIENCE).toBeGreaterThan(20);
  const stopped = first.stop();
  gate.resolve();
  await stopped;
  await consume(name, handle);
  await expect.poll(() => counts.size, PATIENCE).toBe(200);
  expect(Math.max(...counts.values())).toBe(1);
});

test('two consumers of one process share its connections and each gets its own copy, also on retries at the same time', async () => {
  const [one, two] = [newName(), newName()];
  const seen: string[] = [];
  const broker = connect(one);
  const routingKeys = [one];
  const consumers = [one, two].map((name) =>
    start(
      name,
      async ({ id }) => {
        seen.push(`${name} ${id}`);
        return seen.filter((each) => each === `${name} ${id}`).length < 3
          ? { kind: 'retry', error: new OrderError('no') }
          : handled;
      },
      { broker, routingKeys, retryDelaysMs: [50, 50] },
    ),
  );
  for (const consumer of consumers) await expect.poll(() => consumer.consuming, PATIENCE).toBe(true);
  const id = send(one);
  await expect.poll(() => seen.length, PATIENCE).toBe(6);
  expect(new Set(seen)).toEqual(new Set([`${one} ${id}`, `${two} ${id}`]));
});

describe('failures', () => {
  test('a failing message climbs the retry ladder and then lies in the dead queue, with its record and as it was', async () => {
    const name = newName();
    const seen: { at: number; routingKey: string }[] = [];
    const handle = async ({ routingKey }: Received): Promise<Verdict> => {
      seen.push({ at: Date.now(), routingKey });
      return { kind: 'retry', error: new OrderError('someone@example.org has no order') };
    };
    const consumer = await consume(name, handle, { retryDelaysMs: [200, 700] });
    const id = send(
      name,
      { correlationId: 'corr', timestamp: 42, headers: { mine: 'ä', CC: ['nobody'], expires: 7 } },
      '{"a":1.0}',
    );
    const dead = await read(`${name}.dead`);
    expect(seen.map(({ routingKey }) => routingKey)).toEqual([name, name, name]);
    const [first = 0, second = 0, third = 0] = seen.map(({ at }) => at);
    expect(second - first).toBeGreaterThanOrEqual(190);
    expect(third - second).toBeGreaterThanOrEqual(690);
    expect(dead.content.toString()).toBe('{"a":1.0}');
    expect(dead.properties).toMatchObject({
      messageId: id,
      type: 'T',
      correlationId: 'corr',
      timestamp: 42,
      deliveryMode: 2,
    });
    const {
      'x-oncebox-first-failure': firstFailure,
      'x-oncebox-last-failure': lastFailure,
      ...headers
    } = dead.properties.headers ?? {};
    expect(headers).toMatchObject({
      schemaversion: 1,
      mine: 'ä',
      expires: 7,
      'x-oncebox-attempts': 3,
      'x-oncebox-consumer': name,
      'x-oncebox-reason': 'OrderError E_ORDER',
      'x-oncebox-routing-key': name,
    });
    expect(JSON.stringify(headers)).not.toMatch(/example\.org|x-death|CC/);
    expect(Date.parse(lastFailure) - Date.parse(firstFailure)).toBeGreaterThanOrEqual(890);
    await expectSettled(name, consumer);
  });

  test('a dead verdict goes to the dead queue at once', async () => {
    const name = newName();
    let calls = 0;
    const consumer = await consume(name, async () => {
      calls++;
      return { kind: 'dead', error: new OrderError('no') };
    });
    const id = send(name);
    expect((await read(`${name}.dead`)).properties).toMatchObject({
      messageId: id,
      headers: { 'x-oncebox-attempts': 1 },
    });
    expect(calls).toBe(1);
    await expectSettled(name, consumer);
  });

  test('a message without an id is dead and never reaches the handler', async () => {
    const name = newName();
    let calls = 0;
    const consumer = await consume(name, async () => {
      calls++;
      return handled;
    });
    send(name, { messageId: '' });
    const { properties } = await read(`${name}.dead`);
    expect(properties.headers).toMatchObject({
      'x-oncebox-reason': 'MessageError ONCEBOX_MALFORMED_MESSAGE: The message has no messageId',
    });
    expect(calls).toBe(0);
    await expectSettled(name, consumer);
  });

  test('a handler that throws costs an attempt and stops nothing else', async () => {
    const name = newName();
    const done: string[] = [];
    const failing = new Set<string>();
    const handle = async ({ id }: Received): Promise<Verdict> => {
      if (!failing.has(id)) {
        failing.add(id);
        throw new TypeError('broken');
      }
      done.push(id);
      return handled;
    };
    const consumer = await consume(name, handle, { retryDelaysMs: [50] });
    const ids = [send(name), send(name)];
    await expect.poll(() => done.length, PATIENCE).toBe(2);
    expect(new Set(done)).toEqual(new Set(ids));
    await expectSettled(name, consumer);
  });

  test('a failed message is not lost when its retry queue is gone: it comes back and the queue is declared again', async () => {
    const name = newName();
    let calls = 0;
    const handle = async (): Promise<Verdict> => {
      calls++;
      return calls < 3 ? { kind: 'retry', error: new OrderError('no') } : handled;
    };
    const consumer = await consume(name, handle, { retryDelaysMs: [100, 100, 100] });
    await channel.deleteQueue(`${name}.retry.100ms`);
    send(name);
    await expect.poll(() => calls, PATIENCE).toBe(3);
    await expectSettled(name, consumer);
    expect(await vhost.depth(`${name}.dead`)).toBe(0);
  });

  test('headers that leave no room for the record are no reason to keep the message: the broker moves it to the dead queue', async () => {
    const name = newName();
    const consumer = await consume(name, async () => ({ kind: 'retry', error: new OrderError('no') }));
    const id = send(name, { headers: { large: 'x'.repeat(65_400) } });
    expect((await read(`${name}.dead`)).properties.messageId).toBe(id);
    await expectSettled(name, consumer);
  });
});
