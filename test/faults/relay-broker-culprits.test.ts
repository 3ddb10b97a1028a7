import { randomUUID } from 'node:crypto';
import type { Channel } from 'amqplib';
import { expect, inject, it, onTestFinished } from 'vitest';
import { systemOnBroker } from '../support/own-broker.ts';
import { createSystem, type System } from '../support/system.ts';

/**
 * The broker closes a channel because of one message: the others flow, and they cost no attempt.
 */

const PATIENCE = { timeout: 60_000, interval: 50 };

async function newSystem(): Promise<{ system: System; channel: Channel }> {
  const system = await createSystem(inject('servers'));
  onTestFinished(() => system.drop());
  const channel = await system.vhost.channel();
  await bindQueue(channel, 'good', 'oncebox.events');
  return { system, channel };
}

async function bindQueue(channel: Channel, queue: string, exchange: string): Promise<void> {
  await channel.assertExchange(exchange, 'topic', { durable: true });
  await channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
  await channel.bindQueue(queue, exchange, '#');
}

interface Group {
  readonly type: string;
  readonly rows: number;
  readonly exchange?: string;
  readonly routingKey?: string;
  readonly payload?: string;
  readonly delivery?: 'required' | 'optional';
}

/** Writes rows of as many keys, the groups among one another as they would come. */
async function insert({ shop }: Pick<System, 'shop'>, groups: readonly Group[]): Promise<void> {
  const most = Math.max(...groups.map(({ rows }) => rows));
  const rows = groups.flatMap((group) =>
    Array.from({ length: group.rows }, (_, n) => ({ place: (n + 0.5) * (most / group.rows), ...group })),
  );
  rows.sort((one, other) => one.place - other.place);
  for (let from = 0; from < rows.length; from += 500) {
    const part = rows.slice(from, from + 500);
    await shop(
      `INSERT INTO outbox (id, aggregatetype, aggregateid, type, version, payload, exchange, routing_key, delivery)
       VALUES ${part.map(() => "(?, 'note', ?, ?, 1, ?, ?, ?, ?)").join()}`,
      part.flatMap(
        ({ type, exchange = 'oncebox.events', routingKey = 'note', payload = '{}', delivery = 'required' }) => [
          randomUUID(),
          randomUUID(),
          type,
          payload,
          exchange,
          routingKey,
          delivery,
        ],
      ),
    );
  }
}

/** How many rows of a type are in which state, and after at most how many attempts. */
async function stateOf({ shop }: Pick<System, 'shop'>, type: string): Promise<string[]> {
  const rows = await shop(
    `SELECT state, COUNT(*) AS n, MIN(attempts) AS least, MAX(attempts) AS most FROM outbox WHERE type LIKE ?
      GROUP BY state ORDER BY state`,
    [type],
  );
  return rows.map(
    ({ state, n, least, most }) =>
      `${n} ${state}${Number(least) > 0 ? ', tried' : ''}${Number(most) > 0 ? '' : ', no attempt'}`,
  );
}

async function reasonsOf({ shop }: Pick<System, 'shop'>, type: string): Promise<unknown[]> {
  const rows = await shop('SELECT DISTINCT last_error FROM outbox WHERE type LIKE ? AND last_error IS NOT NULL', [
    type,
  ]);
  return rows.map((row) => row['last_error']);
}

/** Seconds until all good rows are published. */
async function flow(system: Pick<System, 'shop'>, groups: readonly Group[]): Promise<string> {
  const began = performance.now();
  await insert(system, groups);
  const [good] = groups;
  await expect
    .poll(() => stateOf(system, good?.type ?? ''), { timeout: 110_000, interval: 20 })
    .toEqual([`${good?.rows} published, no attempt`]);
  return `${((performance.now() - began) / 1_000).toFixed(2)} s`;
}

it('G1: messages for undeclared exchanges wait, the others flow, and both arrive once the exchange is there', async () => {
  const { system, channel } = await newSystem();
  await system.relay().ready();
  const names = ['a', 'b', 'c', 'd', 'e'];
  const refused = names.map((name) => ({ type: 'Refused', rows: 10, exchange: `undeclared.${name}` }));
  const optional = { type: 'Optional', rows: 10, exchange: 'undeclared.f', delivery: 'optional' } as const;
  await flow(system, [{ type: 'Good', rows: 300 }, ...refused, optional]);
  await expect.poll(() => stateOf(system, 'Refused'), PATIENCE).toEqual(['50 pending, tried']);
  await expect.poll(() => stateOf(system, 'Optional'), PATIENCE).toEqual(['10 pending, tried']);
  const reasons = await reasonsOf(system, 'Refused');
  expect(reasons).toHaveLength(5);
  for (const reason of reasons) expect(reason).toMatch(/^returned: .*no exchange 'undeclared\.[a-e]'/);
  for (const name of [...names, 'f']) await bindQueue(channel, `late.${name}`, `undeclared.${name}`);
  await expect.poll(() => stateOf(system, 'Refused'), PATIENCE).toEqual(['50 published, tried']);
  await expect.poll(() => stateOf(system, 'Optional'), PATIENCE).toEqual(['10 published, tried']);
  expect(await system.vhost.depth('good')).toBe(300);
});

it('G2: after an exchange was deleted under load its messages wait, and the others flow', async () => {
  const { system, channel } = await newSystem();
  await bindQueue(channel, 'doomed', 'team');
  await system.relay().ready();
  await insert(system, [{ type: 'Before', rows: 50, exchange: 'team' }]);
  await expect.poll(() => stateOf(system, 'Before'), PATIENCE).toEqual(['50 published, no attempt']);
  await channel.deleteExchange('team');
  await flow(system, [
    { type: 'Good', rows: 300 },
    { type: 'Lost', rows: 50, exchange: 'team' },
  ]);
  await expect.poll(() => stateOf(system, 'Lost'), PATIENCE).toEqual(['50 pending, tried']);
  await bindQueue(channel, 'doomed', 'team');
  await expect.poll(() => stateOf(system, 'Lost'), PATIENCE).toEqual(['50 published, tried']);
});

it('G3: messages with a routing key that topic permissions refuse wait, and others of their exchange flow', async () => {
  const { system } = await newSystem();
  const rights = { configure: '.*', write: '.*', read: '.*' };
  const topics = { exchange: 'oncebox.events', write: '^(?!secret)', read: '.*' };
  await system.relay({ AMQP_URL: await system.vhost.userWith(rights, { topics }) }).ready();
  await flow(system, [
    { type: 'Good', rows: 300 },
    { type: 'Secret', rows: 30, routingKey: 'secret.one' },
    { type: 'Long', rows: 5, routingKey: `secret.${'x'.repeat(248)}` },
  ]);
  await expect.poll(() => stateOf(system, 'Secret'), PATIENCE).toEqual(['30 pending, tried']);
  await expect.poll(() => stateOf(system, 'Long'), PATIENCE).toEqual(['5 pending, tried']);
  expect(await reasonsOf(system, 'Secret')).toEqual([expect.stringMatching(/^returned: .*topic 'secret\.one'/)]);
});

it('G4: messages wait for exchanges which the broker does not name, or names ambiguously, and the others flow', async () => {
  const { system, channel } = await newSystem();
  await channel.assertExchange('inner', 'fanout', { internal: true });
  await system.relay().ready();
  const exchanges = ['x'.repeat(127), "it's 'oncebox.events'", 'inner', 'y"; DROP'];
  await flow(system, [
    { type: 'Good', rows: 300 },
    ...exchanges.map((exchange, n) => ({ type: `Refused${n}`, rows: 10, exchange })),
  ]);
  for (const [n] of exchanges.entries()) {
    await expect.poll(() => stateOf(system, `Refused${n}`), PATIENCE).toEqual(['10 pending, tried']);
  }
});

it('G5: a message that is larger than the broker allows is parked, and the others flow', async () => {
  const system = await systemOnBroker();
  await system.broker.limitMessages(100_000);
  await system.relay(system.settings).ready();
  await flow(system, [
    { type: 'Good', rows: 300 },
    { type: 'Large', rows: 3, payload: JSON.stringify('x'.repeat(150_000)) },
  ]);
  await expect.poll(() => stateOf(system, 'Large'), PATIENCE).toEqual(['3 parked, tried']);
  expect(await reasonsOf(system, 'Large')).toEqual([expect.stringContaining('message size 150002 is larger')]);
});

it('G7: beside hundreds of exchanges that are not there the others flow', async () => {
  const { system } = await newSystem();
  await system.relay().ready();
  const few = Array.from({ length: 100 }, (_, n) => ({ type: 'Few', rows: 3, exchange: `few.${n}` }));
  const each = Array.from({ length: 100 }, (_, n) => ({ type: 'Each', rows: 1, exchange: `each.${n}` }));
  const took = await flow(system, [{ type: 'Good', rows: 300 }, ...few, ...each]);
  console.log(`300 messages beside 200 exchanges that are not there: ${took}`);
  await expect.poll(() => stateOf(system, 'Few'), PATIENCE).toEqual(['300 pending, tried']);
  await expect.poll(() => stateOf(system, 'Each'), PATIENCE).toEqual(['100 pending, tried']);
});
