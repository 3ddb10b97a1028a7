import {
  createPool,
  errnoOf,
  fromConnection,
  isContention,
  isUnavailable,
  type Pool,
  savepoint,
  type Transaction,
  transaction,
} from '@oncebox/mysql';
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
  await admin.query('CREATE PROCEDURE harmless() SELECT 1');
  await admin.query('CREATE PROCEDURE ends() COMMIT');
  await admin.query("CREATE PROCEDURE sets() SET SESSION time_zone = '+05:00'");
  await admin.query('CREATE PROCEDURE ends_and_begins() BEGIN COMMIT; START TRANSACTION; END');
  pool = createPool(schemas.shop.adminUrl, { connections: 4, session: { innodb_lock_wait_timeout: 1 } });
});

afterAll(async () => {
  await pool.end();
  await admin.end();
  await schemas.drop();
});

const isMariadb = async (): Promise<boolean> => {
  const [[row]] = await admin.query<(RowDataPacket & { version: string })[]>('SELECT VERSION() AS version');
  return row?.version.includes('MariaDB') ?? false;
};
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

describe('A6: what ends a transaction of ours before its time', () => {
  const LOST = { code: 'ONCEBOX_TRANSACTION_LOST' };
  const add = (tx: Transaction, by = 1) => tx.execute('UPDATE account SET balance = balance + ? WHERE id = 1', [by]);

  it.each([
    'CREATE TABLE ddl (a INT)',
    'commit',
    '/* unseen */ ROLLBACK',
    'START TRANSACTION',
    'TRUNCATE account',
    'LOCK TABLES account WRITE',
    '/*!50000 COMMIT */',
    "EXECUTE IMMEDIATE 'COMMIT'",
    'CALL ends()',
    'CALL ends_and_begins()',
  ])('A6: %s is told, and nothing that is written is taken for rolled back', async (sql) => {
    const before = await balances();
    if (sql.startsWith('EXECUTE') && !(await isMariadb())) return; // MariaDB's alone
    for (const after of ['throws', 'goes on', 'ends'] as const) {
      const attempt = transaction(pool, async (tx) => {
        await add(tx, 0);
        await tx.query(sql).catch((error: unknown) => {
          if (after === 'throws') throw error;
        });
        if (after === 'goes on') await add(tx);
      });
      await expect(attempt).rejects.toMatchObject(LOST);
    }
    expect(await balances()).toEqual(before);
    await transaction(pool, (tx) => add(tx));
    expect((await balances())[0]).toBe((before[0] ?? 0) + 1);
  });

  it.each([
    { what: 'each other', others: () => [] },
    { what: 'a savepoint', others: (tx: Transaction) => [savepoint(tx, (scope) => add(scope, 0))] },
  ])('A6: procedures that run beside $what end nothing', async ({ others }) => {
    const [before = 0] = await balances();
    await transaction(pool, async (tx) => {
      await Promise.all([tx.query('CALL harmless()'), tx.query('CALL harmless()'), ...others(tx), add(tx)]);
    });
    expect((await balances())[0]).toBe(before + 1);
  });

  it('A6: what waits behind a deadlock in the same transaction is not committed by itself', async () => {
    const before = await balances();
    const rival = await admin.getConnection();
    await rival.query('START TRANSACTION');
    await rival.query(
      'INSERT INTO account SELECT id + 200, 0 FROM (SELECT 1 AS id UNION SELECT 2 UNION SELECT 3) AS ids',
    );
    await rival.query('UPDATE account SET balance = balance + 0 WHERE id = 2');
    const work = transaction(
      pool,
      async (tx) => {
        await add(tx);
        const together = Promise.allSettled([
          tx.execute('UPDATE account SET balance = balance + 1 WHERE id = 2'),
          tx.execute('UPDATE account SET balance = balance + 1 WHERE id = 1'),
          tx.query('UPDATE account SET balance = balance + 1 WHERE id = 1'),
        ]);
        await rival.query('UPDATE account SET balance = balance + 0 WHERE id = 1');
        await rival.query('ROLLBACK');
        await together;
      },
      { attempts: 1 },
    );
    await expect(work).rejects.toSatisfy(isContention);
    rival.release();
    expect(await balances()).toEqual(before);
  });

  it.each(['/*!40101 SET NAMES latin1 */', 'CALL sets()'])('A6: %s does not reach the next borrower', async (sql) => {
    const single = createPool(schemas.shop.adminUrl, { connections: 1 });
    await transaction(single, async (tx) => void (await tx.query(sql)));
    const [[session]] = await single.query<RowDataPacket[]>(
      'SELECT @@character_set_client AS charset, @@time_zone AS zone',
    );
    expect(session).toEqual({ charset: 'utf8mb4', zone: '+00:00' });
    await single.end();
  });

  it('A6: what was committed by a procedure is told even when the work throws something else', async () => {
    const attempt = transaction(pool, async (tx) => {
      await add(tx);
      await tx.query('CALL ends()').catch(() => undefined);
      throw new Error('to roll back');
    });
    await expect(attempt).rejects.toMatchObject(LOST);
  });

  it.each(['SET @total = 1', 'CREATE TEMPORARY TABLE held (a INT)', 'DO 0', 'CALL harmless()'])(
    'A6: %s ends nothing',
    async (sql) => {
      const [before = 0] = await balances();
      await transaction(pool, async (tx) => {
        await tx.query(sql);
        await add(tx);
      });
      expect((await balances())[0]).toBe(before + 1);
    },
  );

  it('A6: what a statement leaves in the session does not reach the next borrower', async () => {
    const single = createPool(schemas.shop.adminUrl, { connections: 1 });
    await transaction(single, async (tx) => {
      await tx.query("SET SESSION sql_mode = 'ANSI_QUOTES'");
      await tx.query('SELECT GET_LOCK(?, 0)', [schemas.shop.name]);
    });
    const [[session]] = await single.query<RowDataPacket[]>('SELECT @@sql_mode AS mode, IS_USED_LOCK(?) AS owner', [
      schemas.shop.name,
    ]);
    expect(session).toMatchObject({ mode: expect.stringContaining('STRICT_TRANS_TABLES'), owner: null });
    await single.end();
  });

  it('A8: a named lock ends with the work that took it, however that ended', async () => {
    const single = createPool(schemas.shop.adminUrl, { connections: 1 });
    const owner = async () => {
      const [[row]] = await admin.query<RowDataPacket[]>('SELECT IS_USED_LOCK(?) AS owner', [schemas.shop.name]);
      return row?.['owner'];
    };
    const lock = async (tx: Transaction) => void (await tx.execute('SELECT GET_LOCK(?, 0)', [schemas.shop.name]));
    await transaction(single, lock);
    expect(await owner()).toBeNull();
    const failing = transaction(single, async (tx) => {
      await lock(tx);
      throw new Error('no');
    });
    await expect(failing).rejects.toThrow('no');
    expect(await owner()).toBeNull();
    await single.end();
  });
});

it('A8: the victim of a deadlock keeps no named lock, so that its next attempt finds it free', async () => {
  const [before = 0] = await balances();
  const rival = await admin.getConnection();
  await rival.query('START TRANSACTION');
  // More rows than ours, so that the server chooses ours as the victim.
  await rival.query(
    'INSERT INTO account SELECT id + 100, 0 FROM (SELECT 1 AS id UNION SELECT 2 UNION SELECT 3) AS ids',
  );
  await rival.query('UPDATE account SET balance = balance + 0 WHERE id = 2');
  const free: unknown[] = [];
  const work = transaction(pool, async (tx) => {
    const [[row]] = await tx.execute<RowDataPacket[]>('SELECT GET_LOCK(?, 0) AS mine', [schemas.shop.name]);
    free.push(row?.['mine']);
    await tx.execute('UPDATE account SET balance = balance + 1 WHERE id = 1');
    const waits = tx.execute('UPDATE account SET balance = balance + 0 WHERE id = 2');
    waits.catch(() => undefined); // it may be the victim before it is awaited
    if (free.length === 1) await rival.query('UPDATE account SET balance = balance + 0 WHERE id = 1');
    if (free.length === 1) await rival.query('ROLLBACK');
    await waits;
  });
  await work;
  rival.release();
  expect(free.every((mine) => mine === 1)).toBe(true);
  expect((await balances())[0]).toBe(before + 1);
});

describe('A7: savepoints', () => {
  const add = (tx: Transaction) => tx.execute('UPDATE account SET balance = balance + 1 WHERE id = 1');

  it('A7: one within another takes back its own work alone, and the outer one both', async () => {
    const [before = 0] = await balances();
    await transaction(pool, async (tx) => {
      await savepoint(tx, async (outer) => {
        await add(outer);
        await savepoint(outer, async (inner) => {
          await add(inner);
          throw new Error('inner');
        }).catch(() => undefined);
        await savepoint(outer, add);
      });
      await savepoint(tx, async (outer) => {
        await savepoint(outer, add);
        throw new Error('outer');
      }).catch(() => undefined);
    });
    expect((await balances())[0]).toBe(before + 2);
  });

  it('A7: two side by side on one handle are refused, and those one after the other are not', async () => {
    const [before = 0] = await balances();
    await transaction(pool, async (tx) => {
      const [first, second] = await Promise.allSettled([savepoint(tx, add), savepoint(tx, add)]);
      expect(first.status).toBe('fulfilled');
      expect(second).toMatchObject({ reason: { code: 'ONCEBOX_SAVEPOINT_OPEN' } });
      await savepoint(tx, add);
    });
    expect((await balances())[0]).toBe(before + 2);
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
