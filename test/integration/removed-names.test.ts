import type { RowDataPacket } from 'mysql2/promise';
import { expect, test } from 'vitest';
import {
  admin,
  age,
  channel,
  codesOf,
  contract,
  letters,
  Moved,
  newName,
  oncebox,
  ours,
  PATIENCE,
  poolOf,
  problemsOf,
  publish,
  Sold,
  theirs,
  vhost,
  work,
  working,
} from '../support/shared-names.ts';

/** What a type or a consumer that was removed leaves at the broker, and how it is found and mended. */

/** Whether any queue gets what is published with the key. */
async function isRouted(key: string): Promise<boolean> {
  const probe = await vhost.channel();
  const returned = Promise.withResolvers<boolean>();
  probe.on('return', () => returned.resolve(false));
  probe.publish('oncebox.events', key, Buffer.from('{}'), { mandatory: true });
  // A return comes before the answer to what is asked behind it.
  await probe.checkExchange('oncebox.events').then(() => returned.resolve(true));
  return await returned.promise;
}

test.each([{ ordered: false }, { ordered: true }])(
  'I3: a type that is handled no more stays bound until the command that log and status name is run (ordered: $ordered)',
  async ({ ordered }) => {
    const name = newName();
    // Keys that no other test has bound.
    const [Lost, Kept] = [contract(`Lost${ordered}`), contract(`Kept${ordered}`)];
    const old = await working(name, [Moved, Lost, Kept], { ordered });
    const next = await working(name, [Moved, Kept], { ordered });
    await old.stop();
    const rows = async () =>
      (
        await admin.query<RowDataPacket[]>(
          'SELECT type FROM consumer_bindings WHERE consumer = ? AND unhandled_since IS NOT NULL',
          [name],
        )
      )[0].map((row) => row['type']);
    await expect.poll(rows, PATIENCE).toEqual([Lost.type]);
    expect(await codesOf(name)).toEqual([]);
    await age(name);
    const [problem, ...others] = await problemsOf(ours, name);
    expect(others).toEqual([]);
    expect(problem).toMatchObject({ code: 'ONCEBOX_BINDING_UNHANDLED', consumer: name });
    expect(problem?.what).toContain(Lost.routingKey);
    await expect.poll(() => next.said.map(({ code }) => code), PATIENCE).toContain('ONCEBOX_BINDING_UNHANDLED');

    publish(Lost, 1);
    await expect.poll(() => letters(poolOf(ours), name), PATIENCE).toHaveLength(1);
    expect((await letters(poolOf(ours), name))[0]).toMatch(/ONCEBOX_TYPE_REMOVED: .*oncebox consumers unbind/);

    const [, ...command] = problem?.command.split(' ') ?? [];
    expect(await oncebox(ours, 'consumers', 'unbind', name, 'Moved')).toMatchObject({ code: 1 });
    expect(await oncebox(ours, ...command)).toMatchObject({ code: 0 });
    expect(await isRouted(Lost.routingKey)).toBe(false);
    expect(await isRouted(Kept.routingKey)).toBe(true);
    expect(await codesOf(name)).toEqual([]);
  },
);

test.each([{ ordered: false }, { ordered: true }])(
  'I3: a binding that nobody has written down is removed by its exchange and key, and none that a worker has (ordered: $ordered)',
  async ({ ordered }) => {
    const name = newName();
    const [Before, Kept] = [contract(`Before${ordered}`), contract(`Still${ordered}`)];
    await working(name, [Kept], { ordered });
    const bind = ordered ? channel.bindExchange : channel.bindQueue;
    await bind.call(channel, name, Before.exchange, Before.routingKey);
    const unbind = ({ exchange, routingKey }: typeof Kept) =>
      oncebox(ours, 'consumers', 'unbind', name, '--exchange', exchange, '--routing-key', routingKey);
    expect(await isRouted(Before.routingKey)).toBe(true);
    expect(await unbind(Kept)).toMatchObject({ code: 1 });
    expect(await unbind(Before)).toMatchObject({ code: 0 });
    expect(await isRouted(Before.routingKey)).toBe(false);
    expect(await isRouted(Kept.routingKey)).toBe(true);
  },
);

test('I3: a release that comes back finds its binding and its messages', async () => {
  const name = newName();
  await (await working(name, [Moved, Sold])).stop();
  await (await working(name, [Moved])).stop();
  publish(Sold, 1);
  const back = await working(name, [Moved, Sold]);
  await expect.poll(() => back.seen, PATIENCE).toEqual(['Sold 1']);
  await age(name);
  expect(await codesOf(name)).toEqual([]);
});

test('I3: a type that another live worker handles stays registered, and goes with that worker', async () => {
  const name = newName();
  const old = await working(name, [Moved, Sold]);
  await working(name, [Moved]);
  const types = async () =>
    (await admin.query<RowDataPacket[]>('SELECT type FROM consumers WHERE consumer = ? ORDER BY type', [name]))[0].map(
      (row) => row['type'],
    );
  expect(await types()).toEqual(['Moved', 'Sold']);
  await old.stop();
  await working(name, [Moved]);
  expect(await types()).toEqual(['Moved']);
});

test.each([{ ordered: false }, { ordered: true }])(
  'I4: a consumer without a worker is named with the command that removes what it has left (ordered: $ordered)',
  async ({ ordered }) => {
    const name = newName();
    const worker = await working(name, [Moved], { ordered });
    expect(await oncebox(ours, 'consumers', 'remove', name)).toMatchObject({ code: 1 });
    await worker.stop();
    expect(await codesOf(name)).toEqual([]);
    await age(name);
    const [problem] = await problemsOf(ours, name);
    expect(problem).toMatchObject({ code: 'ONCEBOX_CONSUMER_GONE' });
    const [, ...command] = problem?.command.split(' ') ?? [];
    publish(Moved, 1);
    const queue = ordered ? `${name}.1` : name;
    await expect.poll(() => vhost.depth(queue), PATIENCE).toBe(1);
    expect(await oncebox(ours, ...command)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(`1 in ${queue}`),
    });
    expect(await oncebox(ours, ...command, '--force')).toMatchObject({ code: 0 });
    for (const left of [queue, `${name}.dead`, `${name}.retry.50ms`]) {
      const probe = await vhost.channel();
      await expect(probe.checkQueue(left)).rejects.toThrow(/404/);
    }
    const probe = await vhost.channel();
    await expect(probe.checkExchange(`${name}.owner`)).rejects.toThrow(/404/);
    expect(await codesOf(name)).toEqual([]);
    const status = JSON.parse((await oncebox(ours, 'status', '--json')).stdout);
    expect(status.consumers).not.toContainEqual(expect.objectContaining({ consumer: name }));
  },
);

test('I4: what a service that was refused has left is no reason to delete the queues of the other', async () => {
  const name = newName();
  const first = await working(name, [Moved]);
  const refused = work(name, [Moved], { schemas: theirs });
  await expect.poll(() => refused.said.map(({ code }) => code), PATIENCE).toContain('ONCEBOX_CONSUMER_NAME_TAKEN');
  await refused.stop();
  expect(await problemsOf(theirs, name)).toEqual([]);
  await poolOf(theirs).query('INSERT INTO consumers (consumer, type) VALUES (?, ?)', [name, 'Moved']);
  expect(await oncebox(theirs, 'consumers', 'remove', name, '--force')).toMatchObject({ code: 0 });
  publish(Moved, 1);
  await expect.poll(() => first.seen, PATIENCE).toEqual(['Moved 1']);
});

test.each([{ ordered: false }, { ordered: true }])(
  'I4: queues that somebody consumes are never deleted, though no worker is written down (ordered: $ordered)',
  async ({ ordered }) => {
    const name = newName();
    await (await working(name, [Moved], { ordered })).stop();
    // As a worker of a release before 0013_names, which writes no row.
    const queue = ordered ? `${name}.1` : name;
    await channel.consume(queue, () => undefined);
    for (const force of [[], ['--force']]) {
      const { code, stderr } = await oncebox(ours, 'consumers', 'remove', name, ...force);
      expect({ code, stderr }).toMatchObject({ code: 1, stderr: expect.stringContaining(queue) });
    }
    expect(await channel.checkQueue(queue)).toMatchObject({ consumerCount: 1 });
  },
);
