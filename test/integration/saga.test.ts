import { createInbox, defineConsumer } from '@oncebox/inbox';
import { type CommandOutcome, defineCommand, type ReplyTo, repliesTo, replyTo } from '@oncebox/message';
import { createPool, deleteExpired, type Pool, transaction } from '@oncebox/mysql';
import {
  answersTo,
  defineSaga,
  findSagas,
  forgetSagas,
  listSagas,
  resumeSaga,
  SAGAS,
  type Saga,
  startSaga,
  watchTimeouts,
} from '@oncebox/saga';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest';
import { z } from 'zod';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

/** A saga on a real database, as the service's own user; what it sends is read from its outbox, and its answers go through an inbox. */

const PATIENCE = { timeout: 30_000, interval: 20 };
const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined };

const payload = z.strictObject({ replyTo, seats: z.int() });
const command = (type: string) => defineCommand({ type, version: 1, owner: 'travel', payload });

interface Trip {
  readonly seats: number;
}
const trip = (timeoutMs: number): Saga<Trip> =>
  defineSaga({
    name: 'trip',
    data: z.strictObject({ seats: z.int() }),
    steps: [
      {
        name: 'flight',
        timeoutMs,
        attempts: 2,
        action: ({ seats }, to) => command('Fly').message({ replyTo: to, seats }),
        compensation: ({ seats }, to) => command('Unfly').message({ replyTo: to, seats }),
      },
      {
        name: 'hotel',
        timeoutMs,
        attempts: 1,
        action: ({ seats }, to) => command('Sleep').message({ replyTo: to, seats }),
      },
    ],
  });
const patient = trip(3_600_000);
const hasty = trip(20);

let schemas: TestSchemas;
let pool: Pool;
let admin: Pool;
beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  pool = createPool(schemas.fulfilment.url, { connections: 8 });
  admin = createPool(schemas.fulfilment.adminUrl, { connections: 2 });
});
afterAll(async () => {
  await Promise.all([pool.end(), admin.end()]);
  await schemas.drop();
});
beforeEach(async () => {
  for (const table of ['saga_history', 'sagas', 'outbox', 'processed_messages'])
    await admin.query('DELETE FROM ??', [table]);
});
const watchers: { readonly stop: AbortController; readonly ended: Promise<void> }[] = [];
afterEach(async () => {
  for (const { stop } of watchers) stop.abort();
  await Promise.all(watchers.splice(0).map(({ ended }) => ended));
});

const begin = (saga: Saga<Trip> = patient, id = 't-1', seats = 2) =>
  transaction(pool, (tx) => startSaga(tx, saga, { id, data: { seats }, lineage: { correlationId: 'corr-1' } }));

const sagas = async (): Promise<RowDataPacket[]> => {
  const [rows] = await admin.query<RowDataPacket[]>('SELECT * FROM sagas ORDER BY id');
  return rows;
};
const commands = async (): Promise<{ type: string; headers: unknown; replyTo: ReplyTo }[]> => {
  const [rows] = await admin.query<RowDataPacket[]>('SELECT type, headers, payload FROM outbox ORDER BY seq');
  return rows.map((row) => ({
    type: String(row['type']),
    headers: JSON.parse(String(row['headers'])),
    replyTo: payload.parse(JSON.parse(String(row['payload']))).replyTo,
  }));
};
const types = async () => (await commands()).map(({ type }) => type);

const done: CommandOutcome = { kind: 'done' };
const refused: CommandOutcome = { kind: 'refused', reason: 'full' };

/** As the saga's consumer gets it. */
async function answer(to: ReplyTo, outcome: CommandOutcome, { id = uuidv7(), saga = patient } = {}): Promise<string> {
  const consumer = defineConsumer({ name: 'trip', handlers: [answersTo(saga)] });
  const { type, routingKey } = repliesTo('trip');
  const verdict = await createInbox(pool, consumer).process({
    id,
    type,
    version: 1,
    payload: JSON.stringify({ replyTo: to, outcome }),
    lineage: { correlationId: 'corr-1' },
    aggregateId: to.id,
    source: 'travel',
    occurredAt: new Date(),
    routingKey,
  });
  return verdict.kind;
}
const to = (step: string, direction: ReplyTo['direction'] = 'forward', id = 't-1'): ReplyTo => ({
  saga: 'trip',
  id,
  step,
  direction,
});

function watch(saga: Saga<Trip>, count = 1): void {
  for (let i = 0; i < count; i++) {
    const stop = new AbortController();
    watchers.push({ stop, ended: watchTimeouts(pool, [saga], { signal: stop.signal, logger: quiet, pollMs: 10 }) });
  }
}

test('a start writes the saga and its first command with the transaction, or nothing', async () => {
  const failed = transaction(pool, async (tx) => {
    await startSaga(tx, patient, { id: 't-1', data: { seats: 2 }, lineage: {} });
    throw new Error('no');
  });
  await expect(failed).rejects.toThrow('no');
  expect([await sagas(), await commands()]).toEqual([[], []]);
  await begin();
  expect(await sagas()).toMatchObject([{ name: 'trip', id: 't-1', state: 'running', step: 'flight', attempts: 1 }]);
  expect(await commands()).toEqual([{ type: 'Fly', headers: { correlationId: 'corr-1' }, replyTo: to('flight') }]);
});

test('of ten starts of one id at once, one counts', async () => {
  await Promise.all(Array.from({ length: 10 }, (_, seats) => begin(patient, 't-1', seats)));
  expect(await sagas()).toHaveLength(1);
  expect(await types()).toEqual(['Fly']);
});

test('an answer moves it on and sends the next command, which belongs to the same chain', async () => {
  await begin();
  const id = uuidv7();
  expect(await answer(to('flight'), done, { id })).toBe('handled');
  expect((await commands()).at(-1)).toEqual({
    type: 'Sleep',
    headers: { correlationId: 'corr-1', causationId: id },
    replyTo: to('hotel'),
  });
  await answer(to('hotel'), done);
  expect(await sagas()).toMatchObject([{ state: 'completed', due_at: null }]);
  expect(await types()).toEqual(['Fly', 'Sleep']);
});

test('a refusal undoes what was done', async () => {
  await begin();
  await answer(to('flight'), done);
  await answer(to('hotel'), refused);
  expect((await commands()).at(-1)).toMatchObject({ type: 'Unfly', replyTo: to('flight', 'back') });
  await answer(to('flight', 'back'), done);
  expect(await sagas()).toMatchObject([{ state: 'compensated', reason: 'full' }]);
});

test('ids that differ by a trailing space are two sagas, each with its own history', async () => {
  for (const id of ['a', 'a ', 'a', 'a ']) await begin(patient, id);
  await begin(patient, "o'brien\\");
  expect((await sagas()).map((row) => row['id'])).toEqual(['a', 'a ', "o'brien\\"]);
  for (const id of ['a', 'a ', "o'brien\\"]) {
    const found = await findSagas(pool, id);
    expect(found.map((saga) => [saga.id, saga.history.length])).toEqual([[id, 1]]);
  }
});

test('retention deletes exactly the sagas that it has found', async () => {
  for (const id of ['a', 'a ', "x') OR 1=1 -- ", '\\']) await begin(patient, id);
  await admin.query(
    "UPDATE sagas SET state = 'completed', due_at = NULL, ended_at = UTC_TIMESTAMP(6) - INTERVAL 3 HOUR WHERE id <> 'a'",
  );
  expect(await deleteExpired(pool, SAGAS, 1, new AbortController().signal)).toBe(3);
  expect((await sagas()).map((row) => row['id'])).toEqual(['a']);
});

describe('an answer changes nothing', () => {
  test.each<[string, ReplyTo]>([
    ['that was given before, under another id', to('flight')],
    ['to a step that was not reached', to('flight', 'back')],
    ['to a step of no such name', to('cruise')],
    ['to a saga that there is not', to('hotel', 'forward', 't-2')],
  ])('%s', async (_name, foreign) => {
    await begin();
    await answer(to('flight'), done);
    const before = [await sagas(), await commands()];
    for (const outcome of [done, refused]) expect(await answer(foreign, outcome)).toBe('handled');
    expect([await sagas(), await commands()]).toEqual(before);
  });

  test('after the end', async () => {
    await begin();
    await answer(to('flight'), refused);
    const before = [await sagas(), await commands()];
    expect(before[0]).toMatchObject([{ state: 'compensated' }]);
    await answer(to('flight'), done);
    expect([await sagas(), await commands()]).toEqual(before);
  });
});

test('two answers at once to one command move it on once', async () => {
  await begin();
  await Promise.all(Array.from({ length: 6 }, () => answer(to('flight'), done)));
  expect(await types()).toEqual(['Fly', 'Sleep']);
});

describe('a time-out', () => {
  test('passes while nobody watches; then the command is sent again, the step given up and undone, and a late answer is nothing', async () => {
    await begin(hasty);
    watch(hasty, 3);
    await expect.poll(types, PATIENCE).toContain('Unfly');
    await answer(to('flight'), done, { saga: hasty });
    expect(await sagas()).toMatchObject([{ direction: 'back', reason: 'timed_out' }]);
    await answer(to('flight', 'back'), done, { saga: hasty });
    expect(await sagas()).toMatchObject([{ state: 'compensated' }]);
    // Asked for anew until it was answered, by the same words.
    expect((await types()).filter((type) => type !== 'Unfly')).toEqual(['Fly', 'Fly']);
    expect((await commands()).every(({ headers }) => JSON.stringify(headers).includes('corr-1'))).toBe(true);
  });

  test('of many sagas, with many that watch, sends each command once a time-out', async () => {
    const ids = Array.from({ length: 30 }, (_, at) => `t-${at}`);
    const [flight] = hasty.steps;
    const oneWay = {
      ...hasty,
      steps: flight?.action === undefined ? [] : [{ name: 'flight', timeoutMs: 20, action: flight.action }],
    };
    for (const id of ids) await begin(oneWay, id);
    watch(oneWay, 4);
    await expect.poll(async () => (await listSagas(pool, { states: ['stuck'], limit: 100 })).length, PATIENCE).toBe(30);
    const sent = (await commands()).map(({ type, replyTo: { id } }) => `${id} ${type}`);
    expect(sent.sort()).toEqual(ids.flatMap((id) => [`${id} Fly`, `${id} Fly`, `${id} Fly`]).sort());
  });
});

describe('a stuck saga', () => {
  test('is listed with its problem and its history, and goes on when it is resumed', async () => {
    await begin(patient);
    await answer(to('flight'), done);
    await admin.query('UPDATE sagas SET due_at = UTC_TIMESTAMP(6)');
    watch(patient);
    const stuck = () => listSagas(pool, { states: ['stuck'], limit: 10 });
    await expect.poll(stuck, PATIENCE).toMatchObject([{ id: 't-1', step: 'hotel', problem: 'not answered, 1 times' }]);
    expect(await resumeSaga(pool, { name: 'trip', id: 't-1' })).toBe('resumed');
    await expect.poll(types, PATIENCE).toEqual(['Fly', 'Sleep', 'Sleep']);
    expect(await resumeSaga(pool, { name: 'trip', id: 't-1' })).toBe('running');
    await answer(to('hotel'), done);
    expect(await resumeSaga(pool, { name: 'trip', id: 't-1' })).toBe('ended');
    expect(await resumeSaga(pool, { name: 'trip', id: 't-2' })).toBe('unknown');
    const [found] = await findSagas(pool, 't-1');
    expect(found).toMatchObject({ state: 'completed', correlationId: 'corr-1' });
    expect(found?.history.map(({ happened }) => happened)).toEqual([
      'started',
      'flight done',
      'hotel not answered',
      'stuck: not answered, 1 times',
      'resumed by an operator',
      'hotel resumed',
      'hotel done',
      'completed',
    ]);
  });

  test('is what a definition makes of it that fails, without holding up the others', async () => {
    await begin(hasty, 'broken', 7);
    await begin(hasty, 'sound', 1);
    const failing = defineSaga<Trip>({
      name: 'trip',
      data: z.strictObject({ seats: z.int() }),
      steps: [
        {
          name: 'flight',
          action({ seats }, replyingTo) {
            if (seats === 7) throw new RangeError('seats of someone@example.com');
            return command('Fly').message({ replyTo: replyingTo, seats });
          },
        },
      ],
    });
    watch(failing);
    await expect.poll(types, PATIENCE).toEqual(['Fly', 'Fly', 'Fly']);
    await expect
      .poll(() => listSagas(pool, { states: ['stuck'], limit: 10 }), PATIENCE)
      .toMatchObject([{ id: 'broken', problem: 'its definition failed: RangeError' }]);
  });
});

test('retention forgets sagas that have ended, with their history, and no others', async () => {
  await begin(patient, 'ended');
  await answer(to('flight', 'forward', 'ended'), refused);
  await begin(patient, 'running');
  const stop = new AbortController();
  const forgetting = forgetSagas(pool, { keepHours: 0, signal: stop.signal, logger: quiet });
  await expect.poll(async () => (await sagas()).map((row) => row['id']), PATIENCE).toEqual(['running']);
  stop.abort();
  await forgetting;
  const [history] = await admin.query<RowDataPacket[]>('SELECT DISTINCT id FROM saga_history');
  expect(history).toEqual([{ id: 'running' }]);
});
