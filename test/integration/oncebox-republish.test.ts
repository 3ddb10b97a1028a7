import { tmpdir } from 'node:os';
import { defineMessage } from '@oncebox/message';
import { createPool, transaction } from '@oncebox/mysql';
import { createRelay, outbox, type Relay, type RelayOptions } from '@oncebox/outbox';
import { createPublisher } from '@oncebox/rabbitmq';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { describe, expect, inject, it, onTestFinished } from 'vitest';
import { z } from 'zod';
import { PATIENCE, quiet } from '../support/consumers.ts';
import {
  AFTER,
  BEFORE,
  dead,
  env,
  everybody,
  fulfilment,
  handled,
  register,
  run,
  schemas,
  shop,
  WRITTEN,
  written,
} from '../support/messages.ts';
import { startOncebox } from '../support/oncebox.ts';
import { createVhost } from '../support/vhost.ts';

const republish = async (...args: string[]) => {
  const { code, stdout, stderr } = await run('outbox', 'republish', '--json', ...args);
  return { code, stderr, ...(stdout === '' ? {} : JSON.parse(stdout)) };
};
const all = ['--since', '2026-01-01'];

async function pending(): Promise<string[]> {
  const [rows] = await shop.query<RowDataPacket[]>("SELECT id FROM outbox WHERE state = 'pending' ORDER BY seq");
  return rows.map(({ id }) => id);
}

const remembersSince = (time: string) =>
  fulfilment.query("UPDATE retention SET forgotten_before = ? WHERE name = 'processed_messages'", [time]);

describe('oncebox outbox republish', () => {
  it('sets kept messages back to pending, under the same ids, and leaves alone what is not published', async () => {
    const sent = [await written(), await written({ attempts: 3, aggregateid: 'c2' })];
    const parked = await written({ state: 'parked' });
    const dry = await republish(...all, '--dry-run');
    expect(dry).toMatchObject({ code: 0, counts: { 'would republish': 2 } });
    expect(await pending()).toEqual([]);

    expect(await republish(...all)).toMatchObject({
      code: 0,
      messages: sent.map((id) => ({ schema: schemas.shop.name, id, outcome: 'republished' })),
    });
    expect(await pending()).toEqual(sent);
    const [rows] = await shop.query<RowDataPacket[]>(
      'SELECT attempts, published_at, held FROM outbox WHERE id IN (?)',
      [sent],
    );
    expect(rows).toEqual(sent.map(() => ({ attempts: 0, published_at: null, held: 0 })));
    // Again: they are on their way.
    expect(await republish(...all)).toMatchObject({ code: 0, counts: {} });
    expect(await republish('--id', parked, '--id', sent[0] ?? '')).toMatchObject({
      code: 1,
      counts: { 'not published': 2 },
    });
  });

  it('takes those that were published in a time, of a type, of a key, or by their ids', async () => {
    await register('welcome-email', BEFORE, 'CustomerUpdated');
    const early = await written();
    const late = await written({ published_at: AFTER });
    const other = await written({ type: 'CustomerUpdated', aggregateid: "O'Neill " });
    const chosen = async (...args: string[]) =>
      (await republish('--dry-run', ...args)).messages.map(({ id }: { id: string }) => id);
    expect(await chosen('--since', '2026-01-01T12:30Z')).toEqual([late]);
    expect(await chosen('--since', '2026-01-01', '--until', '2026-01-01T12:30Z')).toEqual([early, other]);
    expect(await chosen(...all, '--type', 'CustomerUpdated')).toEqual([other]);
    expect(await chosen('--key', "O'Neill ")).toEqual([other]);
    expect(await chosen('--key', "O'Neill")).toEqual([]);
    expect(await chosen('--id', late, '--id', early)).toEqual([early, late]);
    expect(await chosen(...all, '--schema', schemas.fulfilment.name)).toEqual([]);
    expect((await republish(...all, '--schema', 'nowhere')).code).toBe(2);
  });

  it('K5: refuses what an inbox may have forgotten, unless forced, and not what it has or what a newer consumer cannot have had', async () => {
    const [had, unknown] = [await written(), await written()];
    const young = await written({ created_at: AFTER, published_at: AFTER });
    await handled(had, ...everybody);
    await handled(unknown, 'welcome-email');
    await remembersSince('2026-01-01 12:30:00');
    const refused = await republish(...all);
    expect(refused).toMatchObject({ code: 1, counts: { republished: 2, forgotten: 1 } });
    expect(await pending()).toEqual([had, young]);

    await fulfilment.query("UPDATE consumers SET since = ?, replays = 1 WHERE consumer = 'customer-directory'", [
      AFTER,
    ]);
    expect(await republish('--id', unknown, '--dry-run')).toMatchObject({ code: 0, counts: { 'would republish': 1 } });
    await fulfilment.query("UPDATE consumers SET since = ? WHERE consumer = 'customer-directory'", [BEFORE]);
    expect(await republish('--id', unknown, '--force')).toMatchObject({ code: 0, counts: { republished: 1 } });
    expect(await pending()).toEqual([had, unknown, young]);
  });

  it('K5: refuses what a consumer has discarded, what one that was added later would take for news, and what nobody it sees has registered for', async () => {
    const discarded = await written();
    await dead(discarded, 'discarded');
    const gaveUp = await written();
    await dead(gaveUp);
    const unclaimed = await written({ type: 'OrderPlaced' });
    const optional = await written({ type: 'OrderPlaced', delivery: 'optional' });
    const answer = await republish(...all);
    expect(answer.code).toBe(1);
    expect(answer.messages).toMatchObject([
      { id: discarded, outcome: 'discarded' },
      { id: gaveUp, outcome: 'republished' },
      { id: unclaimed, outcome: 'no consumer' },
      { id: optional, outcome: 'optional' },
    ]);
    await register('newcomer', AFTER);
    const old = await written();
    expect((await republish('--id', old)).counts).toEqual({ history: 1 });
    await fulfilment.query("UPDATE consumers SET replays = 1 WHERE consumer = 'newcomer'");
    expect((await republish('--id', old)).counts).toEqual({ republished: 1 });
    // Without the services nobody would know.
    const { RELAY_DATABASE_URLS = '' } = env;
    const args = ['outbox', 'republish', ...all];
    const blind = await startOncebox(args, { RELAY_DATABASE_URLS }, tmpdir()).ended;
    expect(blind).toMatchObject({ code: 1, stderr: expect.stringContaining('ONCEBOX_NO_SCHEMA') });
    const forced = await startOncebox([...args, '--force', '--json'], { RELAY_DATABASE_URLS }, tmpdir()).ended;
    expect([forced.code, JSON.parse(forced.stdout).counts]).toEqual([0, { republished: 3 }]);
  });

  it('ends with 3 when retention has removed some of what was asked for', async () => {
    await written({ created_at: AFTER, published_at: AFTER });
    await shop.query('UPDATE outbox_partition SET forgotten_before = ? WHERE partition_id = 7', [WRITTEN]);
    const partly = await republish(...all);
    expect(partly).toMatchObject({ code: 3, counts: { republished: 1 } });
    expect(partly.stderr).toContain('may have been removed by retention');
    expect((await republish('--since', '2026-01-01T12:00:01Z')).code).toBe(0);
    expect(await republish('--id', uuidv7())).toMatchObject({ code: 3, counts: { unknown: 1 } });
    await shop.query('UPDATE outbox_partition SET forgotten_before = NULL');
    expect(await republish('--id', uuidv7())).toMatchObject({ code: 1, counts: { unknown: 1 } });
  });

  it.each([
    ['nothing in particular', [], 'Give --since, --key or --id'],
    ['an id that is no option', ['x'], 'unexpected argument'],
    ['an option of another action', ['--since', '1h', '--limit', '1'], '--limit'],
    ['a time that is none', ['--since', 'yesterday'], '--since takes'],
  ])('says what is wrong with %s', async (_case, args, message) => {
    const ended = await run('outbox', 'republish', ...args);
    expect(ended).toMatchObject({ code: 2, stdout: '' });
    expect(ended.stderr.split('\n')[0]).toContain(message);
  });

  it('K5: keeps every key in order, and loses nothing, while relays publish, writers write and messages are sent again', async () => {
    const { seen, start, add, stepsOf } = await walkers();
    const walks = Array.from({ length: 8 }, (_, index) => `w${index}`);
    const take = (step: number) => add(...walks.map((walk) => Step.message({ walk, step })));
    for (const relay of [start(), start()]) relay.start();
    for (let step = 1; step <= 20; step++) await take(step);
    await expect.poll(() => seen.length, PATIENCE).toBe(160);
    const again = republish('--since', '1h', '--type', 'Step');
    for (let step = 21; step <= 40; step++) await take(step);
    const { code, counts } = await again;
    expect(code).toBe(0);
    expect(counts.republished).toBeGreaterThanOrEqual(160);
    await expect.poll(() => seen.length, PATIENCE).toBe(320 + counts.republished);
    for (const walk of walks) {
      const steps = stepsOf(walk);
      const isFirst = (step: number, index: number) => steps.indexOf(step) === index;
      expect(steps.filter(isFirst)).toEqual(Array.from({ length: 40 }, (_, index) => index + 1));
      // The second time in order as well.
      const second = steps.filter((step, index) => !isFirst(step, index));
      expect(second).toEqual(second.toSorted((a, b) => a - b));
    }
    await expect.poll(pending, PATIENCE).toEqual([]);
  });

  it('K5: sends before what waits in the key, and past a failed head, whose place it leaves alone', async () => {
    const { start, add, stepsOf, bind } = await walkers();
    const relay = start({ backoff: { firstMs: 600_000, mostMs: 600_000 } });
    const drain = async () => {
      while ((await relay.runOnce()).length > 0);
    };
    await add(Step.message({ walk: 'w', step: 1 }), Step.message({ walk: 'w', step: 2 }));
    await drain();
    const unheard = Unheard.message({ walk: 'w', step: 3 });
    await add(unheard, Step.message({ walk: 'w', step: 4 }));
    await drain();
    await expect.poll(() => stepsOf('w'), PATIENCE).toEqual([1, 2]);
    await add(Step.message({ walk: 'w', step: 5 }));
    expect(await republish('--key', 'w')).toMatchObject({ code: 0, counts: { republished: 2 } });
    await drain();
    await expect.poll(() => stepsOf('w'), PATIENCE).toEqual([1, 2, 1, 2]);

    await bind('walk.unheard');
    expect((await run('outbox', 'retry', unheard.id)).code).toBe(0);
    await drain();
    await expect.poll(() => stepsOf('w'), PATIENCE).toEqual([1, 2, 1, 2, 3, 4, 5]);
  });
});

const Step = defineMessage({
  type: 'Step',
  version: 1,
  aggregateType: 'walk',
  aggregateId: ({ walk }) => walk,
  routingKey: 'walk.step',
  payload: z.strictObject({ walk: z.string(), step: z.int() }),
});
const Unheard = defineMessage({ ...Step, payload: Step.schema, type: 'Unheard', routingKey: 'walk.unheard' });

/** Relays of the shop's outbox, and a queue for what they send. */
async function walkers() {
  for (const type of ['Step', 'Unheard']) await register('walker', BEFORE, type);
  const vhost = await createVhost(inject('servers'));
  onTestFinished(() => vhost.drop());
  const publisher = createPublisher({ urls: [vhost.amqpUrl], name: 'relay', logger: quiet });
  onTestFinished(() => publisher.close());
  const pool = createPool(schemas.shop.url, { connections: 4 });
  onTestFinished(() => pool.end());
  await expect.poll(() => publisher.ready, PATIENCE).toBe(true);
  const channel = await vhost.channel();
  await channel.assertQueue('seen', { durable: true, arguments: { 'x-queue-type': 'quorum' } });
  const bind = (key: string) => channel.bindQueue('seen', 'oncebox.events', key);
  await bind('walk.step');
  const seen: { walk: string; step: number }[] = [];
  await channel.consume('seen', (message) => void seen.push(JSON.parse(message?.content.toString() ?? '{}')), {
    noAck: true,
  });
  return {
    seen,
    bind,
    stepsOf: (walk: string) => seen.filter((each) => each.walk === walk).map(({ step }) => step),
    start(settings: Partial<RelayOptions> = {}): Relay {
      const databaseUrls = schemas.relayUrls.split(',').slice(0, 1);
      const relay = createRelay({ databaseUrls, publisher, logger: quiet, ...settings });
      onTestFinished(() => relay.stop());
      return relay;
    },
    add: (...messages: Parameters<typeof outbox.add>[1][]) =>
      transaction(pool, async (tx) => {
        for (const message of messages) await outbox.add(tx, message);
      }),
  };
}
