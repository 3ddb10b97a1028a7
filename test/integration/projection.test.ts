import { tmpdir } from 'node:os';
import { load, loadForUpdate, type RebuildProgress, rebuild } from '@oncebox/event-store';
import { createPool, type Pool, transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { order } from '../../apps/api/src/orders/order.ts';
import { orders } from '../../apps/api/src/orders/projection.ts';
import { record } from '../../apps/api/src/orders/record.ts';
import { startOncebox } from '../support/oncebox.ts';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

/** The orders' projection, without the processes around it. */

const CUSTOMER = '01980a5e-5c00-7000-8000-000000000001';
/** More than one batch of a rebuild. */
const MANY = 250;

let schemas: TestSchemas;
let pool: Pool;
/** Of the orders that every test finds, and leaves. */
let ids: string[];
let live: RowDataPacket[];
beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  pool = createPool(schemas.shop.url, { connections: 8 });
  ids = await placeMany();
  for (const id of ids.slice(0, 20)) await confirm(id);
  live = await rows();
});
afterAll(async () => {
  await pool?.end();
  await schemas?.drop();
});
beforeEach(async () => {
  await pool.query('DELETE FROM projection_rebuilds');
});

async function place(id = uuidv7()): Promise<string> {
  const order = { orderId: id, customerId: CUSTOMER, totalAmount: 249, shippingAddress: 'here' };
  const items = [{ sku: 'SKU-1', quantity: 1, unitPrice: 249 }];
  const data = { ...order, items, payment: { token: 'tok_ok' }, process: 'choreography' as const };
  const nothing = { id, version: 0, state: null };
  await transaction(pool, (tx) => record(tx, nothing, [{ type: 'OrderPlaced', data }], {}));
  return id;
}

const confirm = (id: string) =>
  transaction(pool, async (tx) =>
    record(tx, await loadForUpdate(tx, order, id), [{ type: 'OrderConfirmed', data: {} }], {}),
  );

async function placeMany(): Promise<string[]> {
  const ids: string[] = [];
  for (let n = 0; n < MANY / 10; n += 1) ids.push(...(await Promise.all(Array.from({ length: 10 }, () => place()))));
  return ids;
}

const rows = async (): Promise<RowDataPacket[]> =>
  (await pool.query<RowDataPacket[]>('SELECT * FROM orders ORDER BY id'))[0];

/** What each row must say, by the events alone. */
async function expected(): Promise<unknown[]> {
  const [streams] = await pool.query<RowDataPacket[]>('SELECT id FROM event_streams ORDER BY id');
  const found = [];
  for (const { id } of streams) {
    const { version, state } = await load(pool, order, String(id));
    found.push({ id, version, status: state?.status, total_amount: state?.totalAmount });
  }
  return found;
}

/** Whether nothing is missing, nothing too much, and nothing old. */
const expectRight = async () => {
  const found = await rows();
  expect(found.map(({ id, version, status, total_amount }) => ({ id, version, status, total_amount }))).toEqual(
    await expected(),
  );
};

it('is the same after a rebuild as it was live, column for column', async () => {
  await pool.query('DELETE FROM orders');
  expect(await rebuild(pool, orders)).toMatchObject({ done: MANY, total: MANY, removed: 0 });
  expect(await rows()).toEqual(live);
});

it('is put right by a rebuild: rows that are wrong, missing or of no order', async () => {
  await pool.query("UPDATE orders SET status = 'rejected', version = 99 WHERE id > ?", [ids[100]]);
  await pool.query('DELETE FROM orders WHERE id < ?', [ids[50]]);
  for (const id of ['00000000-stray', 'ffffffff-stray']) {
    await pool.query(
      `INSERT INTO orders (id, customer_id, status, process, total_amount, version, placed_at, updated_at)
       VALUES (?, '', 'placed', 'choreography', 0, 1, NOW(), NOW())`,
      [id],
    );
  }
  expect(await rebuild(pool, orders)).toMatchObject({ removed: 2 });
  expect(await rows()).toEqual(live);
});

describe('a rebuild that is cut short', () => {
  async function cutShort(): Promise<void> {
    const stop = new AbortController();
    const onProgress = ({ done }: RebuildProgress) => done > 0 && stop.abort();
    expect(await rebuild(pool, orders, { signal: stop.signal, onProgress })).toBeUndefined();
  }
  const dones = async (options = {}): Promise<number[]> => {
    const seen: number[] = [];
    await rebuild(pool, orders, { ...options, onProgress: ({ done }) => seen.push(done) });
    return seen;
  };

  it('goes on from where it was', async () => {
    await pool.query('DELETE FROM orders');
    await cutShort();
    expect(await rows()).toHaveLength(100);
    expect(await dones()).toEqual([100, 200, 250]);
    await expectRight();
  });

  it('begins anew when it is told to, and when the rows that it wrote are gone', async () => {
    await cutShort();
    expect(await dones({ restart: true })).toEqual([0, 100, 200, 250]);
    await cutShort();
    await pool.query('DELETE FROM orders');
    expect(await dones()).toEqual([0, 100, 200, 250]);
    await expectRight();
  });

  it('shares the work with another one', async () => {
    await pool.query('DELETE FROM orders');
    const ended = await Promise.all([rebuild(pool, orders), rebuild(pool, orders)]);
    expect(ended.map((run) => run?.done)).toEqual([MANY, MANY]);
    await expectRight();
  });
});

describe('oncebox projection rebuild', () => {
  const oncebox = (...args: string[]) =>
    startOncebox(['projection', ...args], { API_DATABASE_URL: schemas.shop.url }, tmpdir());

  it('rebuilds what package.json lists, and shows how far it has come', async () => {
    await pool.query('DELETE FROM orders');
    const { code, stdout, stderr } = await oncebox('rebuild').ended;
    expect(stderr).toBe('');
    expect(stdout.trim().split('\n')).toEqual([
      'orders: 0 of 250 streams (0 %)',
      'orders: 100 of 250 streams (40 %)',
      'orders: 200 of 250 streams (80 %)',
      'orders: 250 of 250 streams (100 %)',
    ]);
    expect(code).toBe(0);
    expect(await rows()).toEqual(live);
  });

  it('goes on after it was killed, and says what came of it as JSON', async () => {
    const killed = oncebox('rebuild', 'orders');
    killed.onLine((line) => line.includes('100 of') && killed.kill());
    await killed.ended;
    await pool.query('UPDATE projection_rebuilds SET finished_at = NULL'); // in case that it was quicker than the signal
    const { code, stdout } = await oncebox('rebuild', '--json').ended;
    expect(JSON.parse(stdout)).toEqual([
      { projection: 'orders', schema: schemas.shop.name, done: MANY, total: MANY, removed: 0 },
    ]);
    expect(code).toBe(0);
    await expectRight();
  });
});

// The last one: it leaves more orders behind.
it('equals the live one when it is rebuilt while orders are placed and changed', async () => {
  await pool.query('DELETE FROM orders');
  const written = new AbortController();
  const writing = (async () => {
    for (let n = 0; !written.signal.aborted; n += 1) {
      await Promise.all([place(), confirm(ids[n % ids.length] ?? ''), confirm(ids[(n * 7) % ids.length] ?? '')]);
    }
  })();
  const progress: RebuildProgress[] = [];
  for (let round = 0; round < 3; round += 1) {
    await rebuild(pool, orders, { onProgress: (now) => progress.push(now) });
  }
  written.abort();
  await writing;
  await expectRight();
  expect(await rows()).not.toHaveLength(MANY);
  expect(progress.filter(({ done }) => done > 0).length).toBeGreaterThan(6);
});
