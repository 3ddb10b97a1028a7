import { createInbox, defineConsumer, on } from '@oncebox/inbox';
import { connectBroker, startConsumer } from '@oncebox/rabbitmq';
import type { RowDataPacket } from 'mysql2/promise';
import { expect, test } from 'vitest';
import {
  admin,
  age,
  channel,
  codesOf,
  letters,
  Moved,
  MovedTwice,
  newName,
  numbers,
  oncebox,
  ours,
  PATIENCE,
  poolOf,
  problemsOf,
  publish,
  quiet,
  Sold,
  started,
  theirs,
  vhost,
  work,
  working,
} from '../support/shared-names.ts';

/** What becomes of messages when two services or two workers use one consumer's name, and what is said of it. */

test.each([{ ordered: false }, { ordered: true }])(
  'I1: a second service takes no message of a consumer name that another one has, and says so (ordered: $ordered)',
  async ({ ordered }) => {
    const name = newName();
    const first = await working(name, [Moved], { ordered });
    const second = work(name, [Moved, Sold], { ordered, schemas: theirs });
    await expect.poll(() => second.said.map(({ code }) => code), PATIENCE).toContain('ONCEBOX_CONSUMER_NAME_TAKEN');
    const beside = await working(name, [Moved], { ordered });
    for (let n = 0; n < 10; n++) publish(Moved, n);
    await expect.poll(() => [...first.seen, ...beside.seen], PATIENCE).toHaveLength(10);
    expect(second.seen).toEqual([]);
    expect(second.consumer.consuming).toBe(false);
    expect(await vhost.bindings(name)).not.toContain('thing.Sold');
    const told = await problemsOf(theirs, name);
    expect(told).toMatchObject([{ code: 'ONCEBOX_CONSUMER_NAME_TAKEN', consumer: name }]);
    expect(await problemsOf(ours, name)).toEqual([]);
  },
);

test('I1: a dead letter of the one service is not stored by the other', async () => {
  const name = newName();
  await working(name, [Moved]);
  const second = work(name, [Moved], { schemas: theirs });
  await expect.poll(() => second.said.map(({ code }) => code), PATIENCE).toContain('ONCEBOX_CONSUMER_NAME_TAKEN');
  channel.publish('oncebox.events', 'thing.Moved', Buffer.from('{}'), { persistent: true });
  await expect.poll(() => letters(poolOf(ours), name), PATIENCE).toHaveLength(1);
  expect(await letters(poolOf(theirs), name)).toEqual([]);
});

test('I1: a name that is handed over by the command is consumed by the other service, and not while it is in use', async () => {
  const name = newName();
  const first = await working(name, [Moved]);
  const second = work(name, [Moved], { schemas: theirs });
  await expect.poll(() => second.said.map(({ code }) => code), PATIENCE).toContain('ONCEBOX_CONSUMER_NAME_TAKEN');
  const [problem] = await problemsOf(theirs, name);
  const [, ...command] = problem?.command.split(' ') ?? [];
  expect(await oncebox(theirs, ...command)).toMatchObject({ code: 1, stderr: expect.stringContaining('not taken') });
  await first.stop();
  expect(await oncebox(theirs, ...command)).toMatchObject({ code: 0 });
  await expect.poll(() => second.consumer.consuming, PATIENCE).toBe(true);
  publish(Moved, 1);
  await expect.poll(() => second.seen, PATIENCE).toEqual(['Moved 1']);
  expect(await problemsOf(theirs, name)).toEqual([]);
  const late = work(name, [Moved]);
  await expect.poll(() => late.said.map(({ code }) => code), PATIENCE).toContain('ONCEBOX_CONSUMER_NAME_TAKEN');
});

test.each([{ ordered: false }, { ordered: true }])(
  'I1: a name whose service is gone is consumed by the next one that starts (ordered: $ordered)',
  async ({ ordered }) => {
    const name = newName();
    await (await working(name, [Moved], { ordered })).stop();
    const next = await working(name, [Moved], { ordered, schemas: theirs });
    publish(Moved, 1);
    await expect.poll(() => next.seen, PATIENCE).toEqual(['Moved 1']);
    expect(next.said.map(({ text }) => text).join()).toContain('took the name from another service');
    expect(await problemsOf(theirs, name)).toEqual([]);
  },
);

test('I1: a service whose name was taken while it consumed stops to consume, and says so', async () => {
  const name = newName();
  const first = await working(name, [Moved]);
  await working(newName(), [Moved], { schemas: theirs });
  expect(await oncebox(theirs, 'consumers', 'take', name, '--force')).toMatchObject({ code: 0 });
  await expect.poll(() => first.said.map(({ code }) => code), PATIENCE).toContain('ONCEBOX_CONSUMER_NAME_TAKEN');
  await expect.poll(() => first.consumer.consuming, PATIENCE).toBe(false);
});

test('I1: a service whose name was taken leaves the dead letters to the other one, and does not take the name back at once', async () => {
  const name = newName();
  const first = await working(name, [Moved]);
  expect(await oncebox(theirs, 'consumers', 'take', name, '--force')).toMatchObject({ code: 0 });
  await expect.poll(() => first.said.map(({ code }) => code), PATIENCE).toContain('ONCEBOX_CONSUMER_NAME_TAKEN');
  const consumersOf = async (queue: string) => (await channel.checkQueue(queue)).consumerCount;
  await expect.poll(() => consumersOf(`${name}.dead`), PATIENCE).toBe(0);
  for (let n = 0; n < 20; n++) channel.sendToQueue(`${name}.dead`, Buffer.from('{}'), { persistent: true });
  await working(name, [Moved], { schemas: theirs });
  await expect.poll(() => letters(poolOf(theirs), name), PATIENCE).toHaveLength(20);
  expect(await letters(poolOf(ours), name)).toEqual([]);
});

test('I1: a service that gets its name back drains its dead queue again', async () => {
  const name = newName();
  const first = await working(name, [Moved]);
  expect(await oncebox(theirs, 'consumers', 'take', name, '--force')).toMatchObject({ code: 0 });
  await expect.poll(() => first.said.map(({ code }) => code), PATIENCE).toContain('ONCEBOX_CONSUMER_NAME_TAKEN');
  expect(await oncebox(ours, 'consumers', 'take', name)).toMatchObject({ code: 0 });
  channel.sendToQueue(`${name}.dead`, Buffer.from('{}'), { persistent: true });
  await expect.poll(() => letters(poolOf(ours), name), PATIENCE).toHaveLength(1);
});

test('I1: a user who may not mark names consumes, and the log says what is not noticed', async () => {
  const name = newName();
  const url = await vhost.userWith({
    configure: `^(oncebox\\..*|${name}|${name}\\.(dead|retry\\..*))$`,
    write: '.*',
    read: '.*',
  });
  const said: string[] = [];
  const say = (_fields: object, text: string): void => void said.push(text);
  const broker = connectBroker({ urls: [url], name, logger: quiet });
  const handlers = [on(Moved, { handle: async () => undefined })];
  const inbox = createInbox(poolOf(ours), defineConsumer({ name, handlers }));
  const consumer = startConsumer({ broker, inbox, logger: { info: () => undefined, warn: say, error: say } });
  started.push(consumer, { stop: () => broker.close() });
  await expect.poll(() => consumer.consuming, PATIENCE).toBe(true);
  expect(said.join('\n')).toContain('would not be noticed');
});

test.each([
  { ordered: false, one: [Moved], other: [Moved, Sold], sent: Sold, what: 'a type' },
  { ordered: true, one: [Moved], other: [Moved, Sold], sent: Sold, what: 'a type' },
  { ordered: false, one: [Moved], other: [MovedTwice], sent: MovedTwice, what: 'a version' },
  { ordered: true, one: [Moved], other: [MovedTwice], sent: MovedTwice, what: 'a version' },
])(
  'I2: $what that only one of several workers knows is handled there, and none becomes dead (ordered: $ordered)',
  async ({ ordered, one, other, sent }) => {
    const name = newName();
    const old = await Promise.all([1, 2, 3].map(() => working(name, one, { ordered })));
    const next = await working(name, other, { ordered });
    for (let n = 0; n < 60; n++) publish(sent, n);
    for (let n = 100; n < 120; n++) publish(Moved, n);
    const seen = () => [...old, next].flatMap((each) => each.seen).toSorted();
    const expected = [...numbers(sent.type, 0, 60), ...numbers('Moved', 100, 120)].toSorted();
    await expect.poll(seen, PATIENCE).toEqual(expected);
    expect(await letters(poolOf(ours), name)).toEqual([]);
  },
);

test.each([{ ordered: false }, { ordered: true }])(
  'I2: workers that handle different messages for long say so, and so does status, until they do no more (ordered: $ordered)',
  async ({ ordered }) => {
    const name = newName();
    const first = await working(name, [Moved], { ordered });
    const second = await working(name, [Sold], { ordered });
    expect(await codesOf(name)).toEqual([]);
    await age(name);
    const [problem] = await problemsOf(ours, name);
    expect(problem).toMatchObject({ code: 'ONCEBOX_WORKERS_DIFFER' });
    expect(problem?.what).toContain('does not handle Sold v1');
    expect(problem?.what).toContain('does not handle Moved v1');
    for (const { said } of [first, second]) {
      await expect.poll(() => said.map(({ code }) => code), PATIENCE).toContain('ONCEBOX_WORKERS_DIFFER');
    }
    expect((await oncebox(ours, 'consumers', 'list')).stdout).toMatch(new RegExp(`${name}.+consuming +Sold v1`));
    await second.stop();
    expect(await codesOf(name)).toEqual([]);
  },
);

test('I2: a worker that is gone without a word is waited for no longer than its lease', async () => {
  const name = newName();
  await working(name, [Moved]);
  await admin.query(
    `INSERT INTO consumer_workers (consumer, worker, place, definition, refused, lease_until)
     SELECT consumer, UUID(), 'gone:1', REPLACE(definition, 'Moved', 'Sold'), 0, UTC_TIMESTAMP(6) + INTERVAL 3 SECOND
       FROM consumer_workers WHERE consumer = ?`,
    [name],
  );
  await channel.bindQueue(name, 'oncebox.events', 'thing.Sold');
  publish(Sold, 1);
  await expect.poll(() => letters(poolOf(ours), name), PATIENCE).toHaveLength(1);
  const left = async () =>
    (await admin.query<RowDataPacket[]>('SELECT place FROM consumer_workers WHERE consumer = ?', [name]))[0];
  await expect.poll(left, PATIENCE).toHaveLength(1);
});
