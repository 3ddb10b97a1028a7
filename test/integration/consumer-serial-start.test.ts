import type { HeldOutcome, Verdict } from '@oncebox/message';
import type { Consumer } from '@oncebox/rabbitmq';
import { expect, test } from 'vitest';
import {
  channel,
  connect,
  consume,
  expectSettled,
  handled,
  newName,
  OrderError,
  PATIENCE,
  send,
  start,
  vhost,
} from '../support/consumers.ts';

/** How the consumers of one process begin. Processes that die are in test/faults. */

/** Makes a consumer's queue with messages that a process had in hand when it died. */
async function crashedWith(count: number): Promise<string> {
  const name = newName();
  const declaring = await consume(name, async () => handled);
  await declaring.stop();
  for (let i = 0; i < count; i++) send(name);
  const crashing = await vhost.channel();
  let got = 0;
  await crashing.consume(name, () => got++);
  await expect.poll(() => got, PATIENCE).toBe(count);
  await crashing.close();
  await expect.poll(() => vhost.depth(name), PATIENCE).toBe(count);
  return name;
}

/** A handler that keeps each message until the gate opens. */
function gated() {
  const gate = Promise.withResolvers<void>();
  const seen = new Set<string>();
  return {
    seen,
    open: () => gate.resolve(),
    handle: async ({ id }: { readonly id: string }): Promise<Verdict> => {
      seen.add(id);
      await gate.promise;
      return handled;
    },
  };
}

test('what was delivered before is handled one at a time in the whole process, and nobody subscribes meanwhile', async () => {
  const names = [await crashedWith(3), await crashedWith(3)];
  let inHand = 0;
  const widths: number[] = [];
  const broker = connect(newName());
  const consumers: Consumer[] = names.map((name) =>
    start(
      name,
      async () => {
        widths.push(++inHand);
        const isConsumed = consumers.some(({ consuming }) => consuming);
        await Promise.all(names.map((each) => vhost.depth(each))); // time enough for the next, if one were sent ahead
        inHand--;
        return isConsumed ? { kind: 'dead', error: new OrderError('subscribed') } : handled;
      },
      { broker },
    ),
  );
  for (const consumer of consumers) await expect.poll(() => consumer.consuming, PATIENCE).toBe(true);
  expect(widths).toEqual([1, 1, 1, 1, 1, 1]);
  for (const name of names) expect(await vhost.depth(`${name}.dead`)).toBe(0);
});

test('a consumer with nothing that was delivered before waits for the others', async () => {
  const name = await crashedWith(1);
  const suspect = gated();
  const healthy = gated();
  healthy.open();
  const other = newName();
  const declaring = await consume(other, async () => handled);
  await declaring.stop();
  const sent = [send(other)];
  await expect.poll(() => vhost.depth(other), PATIENCE).toBe(1);
  const broker = connect(newName());
  const turnIsOver = Promise.withResolvers<void>();
  const consumers = [
    start(name, suspect.handle, { broker, register: () => turnIsOver.promise }),
    start(other, healthy.handle, { broker }),
  ];
  await expect.poll(() => healthy.seen.size, PATIENCE).toBe(1);
  turnIsOver.resolve();
  await expect.poll(() => suspect.seen.size, PATIENCE).toBe(1);
  sent.push(send(other), send(other));
  await expect.poll(() => vhost.depth(other), PATIENCE).toBe(2);
  expect(consumers.map(({ consuming }) => consuming)).toEqual([false, false]);
  suspect.open();
  for (const consumer of consumers) await expect.poll(() => consumer.consuming, PATIENCE).toBe(true);
  await expect.poll(() => [...healthy.seen].toSorted(), PATIENCE).toEqual(sent.toSorted());
});

test('after a message that was delivered before and did no harm, many are taken at a time', async () => {
  const name = await crashedWith(1);
  const later = gated();
  let first = true;
  const consumer = await consume(
    name,
    async (message) => {
      if (!first) return later.handle(message);
      first = false;
      return handled;
    },
    { prefetch: 20 },
  );
  for (let i = 0; i < 30; i++) send(name);
  await expect.poll(() => later.seen.size, PATIENCE).toBeGreaterThanOrEqual(20);
  later.open();
  await expect.poll(() => later.seen.size, PATIENCE).toBe(30);
  await expectSettled(name, consumer);
});

test.each([
  {
    what: 'its queue exists with other settings',
    prepare: async (name: string) => {
      await channel.assertQueue(`${name}.dead`, { arguments: { 'x-queue-type': 'quorum', 'x-max-length': 3 } });
    },
    settings: {},
  },
  {
    what: 'its database is away',
    prepare: async () => undefined,
    settings: {
      probe: async () => {
        throw new OrderError('away');
      },
    },
  },
])('a consumer that cannot begin keeps no other waiting: $what', async ({ prepare, settings }) => {
  const broken = newName();
  await prepare(broken);
  const name = await crashedWith(1);
  const broker = connect(newName());
  const stuck = start(broken, async () => handled, { broker, ...settings });
  const consumer = await consume(name, async () => handled, { broker });
  expect(stuck.consuming).toBe(false);
  await expectSettled(name, consumer);
});

test('a consumer stops while another one has its turn, and the one whose turn it is stops when its message is settled', async () => {
  const first = await crashedWith(2);
  const second = await crashedWith(1);
  const suspect = gated();
  const other = gated();
  const broker = connect(newName());
  const [busy, waiting] = [start(first, suspect.handle, { broker }), start(second, other.handle, { broker })];
  await expect.poll(() => suspect.seen.size + other.seen.size, PATIENCE).toBe(1);
  const [holder, follower] = suspect.seen.size === 1 ? [busy, waiting] : [waiting, busy];
  await follower.stop();
  let stopped = false;
  const stopping = holder.stop().then(() => {
    stopped = true;
  });
  await vhost.depth(first); // a round trip to the broker
  expect(stopped).toBe(false);
  suspect.open();
  other.open();
  await stopping;
  expect((await vhost.depth(first)) + (await vhost.depth(second))).toBe(2);
});

test('a connection that is lost meanwhile blocks nobody, and all is handled on the next one', async () => {
  const names = [await crashedWith(2), await crashedWith(2)];
  const connection = newName();
  const handlers = names.map(gated);
  const broker = connect(connection);
  const consumers = names.map((name, index) =>
    start(name, handlers[index]?.handle ?? (async () => handled), { broker }),
  );
  await expect.poll(() => handlers.some(({ seen }) => seen.size === 1), PATIENCE).toBe(true);
  await vhost.closeConnections(`${connection} consuming`);
  for (const { open } of handlers) open();
  for (const consumer of consumers) await expect.poll(() => consumer.consuming, PATIENCE).toBe(true);
  for (const { seen } of handlers) await expect.poll(() => seen.size, PATIENCE).toBe(2);
  await Promise.all(names.map((name, index) => consumers[index] && expectSettled(name, consumers[index])));
});

test('a message that meets an outage stays in hand until that is over, and a stop gives it back', async () => {
  const name = await crashedWith(1);
  let away = false;
  const refusals: string[] = [];
  const settings = {
    retryDelaysMs: [],
    probe: async () => {
      if (away) throw new OrderError('away');
    },
  };
  const handle = async ({ id }: { readonly id: string }): Promise<Verdict> => {
    away = refusals.push(id) < 3;
    return away ? { kind: 'unavailable', error: new OrderError('away') } : handled;
  };
  const broker = connect(newName());
  const consumer = start(name, handle, { broker, ...settings });
  const other = start(newName(), async () => handled, { broker });
  await expect.poll(() => refusals.length, PATIENCE).toBe(1);
  expect(other.consuming).toBe(false);
  await other.stop();
  await consumer.stop();
  expect(await vhost.depth(name)).toBe(1);

  away = false;
  const again = start(name, handle, settings);
  await expect.poll(() => refusals.length, PATIENCE).toBe(2);
  away = false;
  await expect.poll(() => again.consuming, PATIENCE).toBe(true);
  expect(new Set(refusals).size).toBe(1);
  await expectSettled(name, again);
  expect(await vhost.depth(`${name}.dead`)).toBe(0);
});

test('an ordered consumer has a turn for a held message, and subscribes after the others', async () => {
  const name = await crashedWith(5);
  const events: string[] = [];
  const broker = connect(newName());
  const held = Promise.withResolvers<HeldOutcome | undefined>();
  const turnIsOver = Promise.withResolvers<void>();
  const handleHeld = () => {
    events.push('held');
    return events.length === 1 ? held.promise : Promise.resolve(undefined);
  };
  const handle = async () => {
    // An ordered consumer would need as many round trips to declare its queues.
    for (let i = 0; i < 10; i++) await vhost.depth(name);
    events.push('handled');
    return handled;
  };
  const consumer = start(name, handle, { broker, register: () => turnIsOver.promise });
  const ordered = start(newName(), async () => handled, {
    broker,
    ordered: { handleHeld },
    register: async () => void events.push('declared'),
  });
  await expect.poll(() => events, PATIENCE).toEqual(['held']);
  turnIsOver.resolve();
  await vhost.depth(name);
  expect([consumer.consuming, ordered.consuming]).toEqual([false, false]);
  held.resolve(undefined);
  await expect.poll(() => [consumer.consuming, ordered.consuming], PATIENCE).toEqual([true, true]);
  expect(events.slice(0, 7)).toEqual(['held', ...Array(5).fill('handled'), 'declared']);
});

test('an ordered consumer that is stopped while it waits does not begin', async () => {
  const name = await crashedWith(1);
  const suspect = gated();
  let turns = 0;
  const broker = connect(newName());
  const consumer = start(name, suspect.handle, { broker });
  await expect.poll(() => suspect.seen.size, PATIENCE).toBe(1);
  const ordered = start(newName(), async () => handled, {
    broker,
    ordered: {
      handleHeld: async () => {
        turns += 1;
        return undefined;
      },
    },
  });
  const stopping = ordered.stop();
  suspect.open();
  await stopping;
  expect(turns).toBe(0);
  await expect.poll(() => consumer.consuming, PATIENCE).toBe(true);
});
