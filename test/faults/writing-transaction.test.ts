import { CustomerCreatedV1 } from '@oncebox/contracts';
import { createPool, type Pool, type Transaction, transaction } from '@oncebox/mysql';
import { outbox } from '@oncebox/outbox';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { expect, it, onTestFinished } from 'vitest';
import type { Customer } from '../../apps/api/src/customers/schemas.ts';
import { changeCustomer, createCustomer, deliver, newSystem, shopPool } from '../support/customers.ts';
import { checkInvariants } from '../support/invariants.ts';
import type { System } from '../support/system.ts';

const create = (pool: Pool): Promise<Customer> => transaction(pool, createCustomer);
const idsOf = (customers: readonly Customer[]): string[] => customers.map(({ id }) => id);

/** A pool whose sessions wait one second for a row's lock; the default is 50. */
function impatientPool({ schemas }: System): Pool {
  const pool = createPool(schemas.shop.url, { connections: 2, session: { innodb_lock_wait_timeout: 1 } });
  onTestFinished(() => pool.end());
  return pool;
}

it('2: after a lock wait timeout, which rolls back one statement, the whole closure runs again and no half is committed', async () => {
  const system = await newSystem();
  const pool = impatientPool(system);
  const locked = await create(pool);
  const blocker = await shopPool(system).getConnection();
  await blocker.beginTransaction();
  await blocker.query('SELECT * FROM customers WHERE id = ? FOR UPDATE', [locked.id]);

  let runs = 0;
  const created = await transaction(pool, async (tx) => {
    runs += 1;
    const customer = await createCustomer(tx);
    if (runs === 2) await blocker.rollback();
    await changeCustomer(tx, locked); // 1205 in the first run, with the creation before it still in the transaction
    return customer;
  });
  blocker.release();
  expect(runs).toBe(2);

  await deliver(system);
  // The creation of the first run would be a third customer.
  await checkInvariants(system, { accepted: [locked.id, created.id], versions: new Map([[locked.id, 2]]) });
});

it('3: after a deadlock, which ends the transaction, the closure runs again from its beginning and both are whole', async () => {
  const system = await newSystem();
  const pool = shopPool(system);
  const [one, two] = [await create(pool), await create(pool)];
  const bothHoldOne = Promise.withResolvers<void>();
  let runs = 0;
  let locked = 0;
  const changeBoth = (...order: Customer[]) =>
    transaction(pool, async (tx) => {
      runs += 1;
      for (const customer of order) {
        await changeCustomer(tx, await lock(tx, customer));
        locked += 1;
        if (locked === 2) bothHoldOne.resolve();
        await bothHoldOne.promise;
      }
    });
  await Promise.all([changeBoth(one, two), changeBoth(two, one)]);
  expect(runs).toBeGreaterThan(2);

  await deliver(system);
  const versions = new Map(idsOf([one, two]).map((id) => [id, 3]));
  await checkInvariants(system, { accepted: idsOf([one, two]), versions });
});

/** As the other transaction has left it, once that has ended. */
async function lock(tx: Transaction, { id }: Customer): Promise<Customer> {
  const [[row]] = await tx.query<(Customer & RowDataPacket)[]>('SELECT * FROM customers WHERE id = ? FOR UPDATE', [id]);
  return row ?? expect.fail('no such customer');
}

it('6: the outbox refuses a pool, where a message would be committed by itself; a throw after the insert leaves no row', async () => {
  const system = await newSystem();
  const pool = shopPool(system);
  const message = CustomerCreatedV1.message({ customerId: uuidv7(), email: 'a@example.com', name: 'A', version: 1 });
  // @ts-expect-error: neither does the compiler accept a pool
  await expect(outbox.add(pool, message)).rejects.toMatchObject({ code: 'ONCEBOX_NOT_A_TRANSACTION' });

  const failure = new Error('after the insert');
  const attempt = transaction(pool, async (tx) => {
    await createCustomer(tx);
    throw failure;
  });
  await expect(attempt).rejects.toBe(failure);

  const { id } = await create(pool);
  await deliver(system);
  await checkInvariants(system, { accepted: [id] });
});

it('7: a connection whose borrower threw goes back without a transaction, or not at all', async () => {
  const system = await newSystem();
  const pool = shopPool(system, 1);
  const open = async () => {
    const found = await system.shop(
      `SELECT t.trx_id FROM information_schema.innodb_trx AS t
         JOIN information_schema.processlist AS p ON p.id = t.trx_mysql_thread_id WHERE p.db = ?`,
      [system.schemas.shop.name],
    );
    return found.length;
  };
  const throwing = (mishap: (tx: Transaction) => Promise<unknown>) =>
    transaction(
      pool,
      async (tx) => {
        await createCustomer(tx);
        await mishap(tx);
      },
      { timeoutMs: 2_000 },
    );
  const mishaps: [string, (tx: Transaction) => Promise<unknown>][] = [
    ['throws', () => Promise.reject(new Error('mid-way'))],
    ['a statement fails', (tx) => tx.query('SELECT no_such_column FROM customers')],
    ['loses its session', (tx) => tx.query('KILL CONNECTION_ID()')],
    ['never ends', () => new Promise(() => undefined)],
  ];
  const accepted: string[] = [];
  for (const [name, mishap] of mishaps) {
    await expect(throwing(mishap), name).rejects.toThrow();
    // The server renews innodb_trx only when nobody has looked for 100 ms.
    await expect.poll(open, { timeout: 10_000, interval: 150, message: name }).toBe(0);
    // The pool has one connection: what was left open on it would swallow this.
    accepted.push((await create(pool)).id);
  }
  await deliver(system);
  await checkInvariants(system, { accepted });
});
