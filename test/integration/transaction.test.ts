import { createPool, errnoOf, fromConnection, isUnavailable, type Pool, savepoint, transaction } from '@oncebox/mysql';
import { createConnection } from 'mysql2';
import { createPool as createMysqlPool, type RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

let schemas: TestSchemas;
let pool: Pool;
let admin: Pool;

beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  admin = createPool(schemas.shop.adminUrl, { connections: 3 });
  await admin.query('CREATE TABLE account (id INT PRIMARY KEY, balance INT NOT NULL)');
  await admin.query('INSERT INTO account VALUES (1, 0), (2, 0)');
  pool = createPool(schemas.shop.adminUrl, { connections: 4, session: { innodb_lock_wait_timeout: 1 } });
});

afterAll(async () => {
  await pool.end();
  await admin.end();
  await schemas.drop();
});

const balances = async (): Promise<number[]> => {
  const [rows] = await admin.query<(RowDataPacket & { balance: number })[]>('SELECT balance FROM account ORDER BY id');
  return rows.map((row) => row.balance);
};

describe('transaction', () => {
  it('commits what its closure wrote, and returns what it returned', async () => {
    const [before = 0] = await balances();
    const result = await transaction(pool, async (tx) => {
      await tx.execute('UPDATE account SET balance = balance + 1 WHERE id = 1');
      return 'done';
    });
    expect(result).toBe('done');
    expect((await balances())[0]).toBe(before + 1);
  });

  it('rolls back everything when its closure throws, and gives its connection back clean', async () => {
    const before = await balances();
    const single = createPool(schemas.shop.adminUrl, { connections: 1 });
    const failure = new Error('no');
    await expect(
      transaction(single, async (tx) => {
        await tx.execute('UPDATE account SET balance = balance + 1 WHERE id = 1');
        throw failure;
      }),
    ).rejects.toBe(failure);
    expect(await balances()).toEqual(before);
    // The same connection: nothing is open on it, and what it writes now commits.
    await single.query('UPDATE account SET balance = balance + 5 WHERE id = 2');
    expect((await balances())[1]).toBe((before[1] ?? 0) + 5);
    await single.end();
  });

  it('runs the whole closure again after a lock wait timeout, which rolls back one statement only', async () => {
    const before = await balances();
    const blocker = await admin.getConnection();
    await blocker.query('START TRANSACTION');
    await blocker.query('SELECT * FROM account WHERE id = 2 FOR UPDATE');
    let runs = 0;
    await transaction(pool, async (tx) => {
      runs += 1;
      await tx.execute('UPDATE account SET balance = balance + 1 WHERE id = 1');
      if (runs === 2) await blocker.query('ROLLBACK');
      await tx.execute('UPDATE account SET balance = balance + 1 WHERE id = 2');
    });
    blocker.release();
    expect(runs).toBe(2);
    expect(await balances()).toEqual(before.map((balance) => balance + 1));
  });

  const inside: { where: string; run: typeof savepoint }[] = [
    { where: '', run: (tx, work) => work(tx) },
    { where: ' in a savepoint', run: savepoint },
  ];
  it.each(inside)(
    'runs the whole closure again after a deadlock$where, so that both sides of it are whole',
    async ({ run }) => {
      const before = await balances();
      const bothHoldOne = Promise.withResolvers<void>();
      let holding = 0;
      let runs = 0;
      const transfer = (first: number, second: number): Promise<void> =>
        transaction(pool, async (tx) => {
          runs += 1;
          await tx.execute('UPDATE account SET balance = balance + 1 WHERE id = ?', [first]);
          if (++holding === 2) bothHoldOne.resolve();
          await bothHoldOne.promise;
          await run(tx, (inner) => inner.execute('UPDATE account SET balance = balance + 1 WHERE id = ?', [second]));
        });
      await Promise.all([transfer(1, 2), transfer(2, 1)]);
      expect(runs).toBeGreaterThan(2);
      expect(await balances()).toEqual(before.map((balance) => balance + 2));
    },
  );

  it('gives up after its attempts, with the error of the server', async () => {
    const blocker = await admin.getConnection();
    await blocker.query('START TRANSACTION');
    await blocker.query('SELECT * FROM account WHERE id = 1 FOR UPDATE');
    const attempt = transaction(pool, (tx) => tx.execute('UPDATE account SET balance = balance + 1 WHERE id = 1'), {
      attempts: 1,
    });
    await expect(attempt).rejects.toSatisfy((error) => errnoOf(error) === 1205);
    await blocker.query('ROLLBACK');
    blocker.release();
  });

  it('reads at READ COMMITTED on any pool, and leaves the isolation of the sessions of a foreign one as it was', async () => {
    const foreign = createMysqlPool({ uri: schemas.shop.adminUrl, connectionLimit: 1 });
    const own = createPool(schemas.shop.adminUrl, { connections: 1 });
    for (const [single, isolation] of [
      [foreign, 'REPEATABLE-READ'],
      [own, 'READ-COMMITTED'],
    ] as const) {
      for (let round = 0; round < 2; round++) {
        await transaction(single, async (tx) => {
          await tx.query('SELECT * FROM account');
          await admin.query('UPDATE account SET balance = balance + 7 WHERE id = 1');
          const [[row]] = await tx.query<(RowDataPacket & { balance: number })[]>(
            'SELECT balance FROM account WHERE id = 1',
          );
          expect(row?.balance).toBe((await balances())[0]);
        });
      }
      // @@transaction_isolation is MySQL's name for it, @@tx_isolation MariaDB's.
      const [[session]] = await single.query<RowDataPacket[]>(
        "SHOW VARIABLES WHERE Variable_name IN ('transaction_isolation', 'tx_isolation')",
      );
      expect(session?.['Value']).toBe(isolation);
      await single.end();
    }
  });

  it('destroys a connection that does not answer in time, and frees what it had locked', async () => {
    const blocker = await admin.getConnection();
    await blocker.query('START TRANSACTION');
    await blocker.query('SELECT * FROM account WHERE id = 2 FOR UPDATE');
    const patient = createPool(schemas.shop.adminUrl, { connections: 1 });
    await expect(
      transaction(
        patient,
        async (tx) => {
          await tx.execute('UPDATE account SET balance = balance + 1 WHERE id = 1');
          await tx.execute('UPDATE account SET balance = balance + 1 WHERE id = 2');
        },
        { timeoutMs: 200 },
      ),
    ).rejects.toMatchObject({ code: 'ETIMEDOUT' });
    await blocker.query('ROLLBACK');
    blocker.release();
    await transaction(patient, (tx) => tx.execute('UPDATE account SET balance = balance + 1 WHERE id = 1'));
    await patient.end();
  });

  it('waits no longer than its deadline for a connection, and gives back the one that comes later', async () => {
    const single = createPool(schemas.shop.adminUrl, { connections: 1 });
    const holder = await single.getConnection();
    let runs = 0;
    const late = transaction(single, async () => ++runs, { timeoutMs: 50 });
    await expect(late).rejects.toMatchObject({ code: 'ONCEBOX_NO_CONNECTION' });
    await expect(late).rejects.toSatisfy(isUnavailable);
    holder.release();
    await transaction(single, async () => ++runs);
    expect(runs).toBe(1);
    await single.end();
  });

  it('refuses a query after its end, where it would commit by itself', async () => {
    let escaped: (() => Promise<unknown>) | undefined;
    await transaction(pool, async (tx) => {
      escaped = () => tx.query('UPDATE account SET balance = 0');
    });
    expect(() => escaped?.()).toThrow(expect.objectContaining({ code: 'ONCEBOX_NOT_A_TRANSACTION' }));
  });
});

describe('fromConnection', () => {
  it("joins a transaction that the caller's own library has begun, on either flavour of connection", async () => {
    const before = await balances();
    const promised = await admin.getConnection();
    await promised.beginTransaction();
    const tx = await fromConnection(promised);
    await tx.execute('UPDATE account SET balance = balance + 1 WHERE id = 1');
    await promised.rollback();
    promised.release();
    expect(await balances()).toEqual(before);

    const callbacks = createConnection(schemas.shop.adminUrl);
    await callbacks.promise().beginTransaction();
    await (await fromConnection(callbacks)).execute('UPDATE account SET balance = balance + 1 WHERE id = 1');
    await callbacks.promise().commit();
    callbacks.destroy();
    expect((await balances())[0]).toBe((before[0] ?? 0) + 1);
  });

  it('refuses a connection without an open transaction, and a pool', async () => {
    const connection = await admin.getConnection();
    await expect(fromConnection(connection)).rejects.toMatchObject({ code: 'ONCEBOX_NO_TRANSACTION_BEGUN' });
    await connection.query('SET autocommit = 0');
    await expect(fromConnection(connection)).resolves.toBeDefined();
    connection.destroy();
    await expect(fromConnection(admin)).rejects.toMatchObject({ code: 'ONCEBOX_NOT_A_TRANSACTION' });
  });
});
