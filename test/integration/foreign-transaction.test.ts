import { type Aggregate, append, load } from '@oncebox/event-store';
import { createInbox, defineConsumer, on } from '@oncebox/inbox';
import { defineMessage, type Received } from '@oncebox/message';
import { createPool, fromConnection, type Pool, savepoint, transaction, withOwnOptions } from '@oncebox/mysql';
import { outbox } from '@oncebox/outbox';
import { type ConnectionOptions, createConnection as createCallbackConnection } from 'mysql2';
import { type Connection, createConnection, createPool as createRawPool, type RowDataPacket } from 'mysql2/promise';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it, vi } from 'vitest';
import { z } from 'zod';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

const Noted = defineMessage({
  type: 'Noted',
  version: 1,
  aggregateType: 'note',
  aggregateId: ({ id }) => id,
  routingKey: 'note.noted',
  payload: z.strictObject({ id: z.string(), text: z.string() }),
  maxBytes: 2 ** 20,
});
const note = (id = 'n1', text = 'Zoë 🚚 \\ \' "') => Noted.message({ id, text });

let schemas: TestSchemas;
let admin: Pool;
const open: Connection[] = [];
beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  admin = createPool(schemas.shop.adminUrl, { connections: 2 });
});
afterEach(() => {
  for (const connection of open.splice(0)) connection.destroy();
});
afterAll(async () => {
  await admin.end();
  await schemas.drop();
});
beforeEach(() => admin.query('DELETE FROM outbox'));

/**
 * As an adopter's library opens one: with the service's user, who may insert into the outbox and no
 * more.
 */
async function begun(options: ConnectionOptions = {}): Promise<Connection> {
  const connection = await createConnection({ uri: schemas.shop.url, ...options });
  open.push(connection);
  await connection.beginTransaction();
  return connection;
}
const payloads = async (schema = schemas.shop.name): Promise<string[]> => {
  const [rows] = await admin.query<(RowDataPacket & { payload: string })[]>(
    'SELECT payload FROM ??.outbox ORDER BY seq',
    [schema],
  );
  return rows.map(({ payload }) => payload);
};
const ENDED = { code: 'ONCEBOX_NOT_A_TRANSACTION' };

describe('A1: a handle whose owner has ended the transaction', () => {
  it.each(['commit', 'rollback'] as const)('A1: writes no message after a %s', async (end) => {
    const connection = await begun();
    const tx = await fromConnection(connection);
    await connection[end]();
    await expect(outbox.add(tx, note())).rejects.toMatchObject(ENDED);
    await expect(tx.query('SELECT 1')).rejects.toMatchObject(ENDED);
    await expect(tx.execute('DELETE FROM customers')).rejects.toMatchObject(ENDED);
    expect(await payloads()).toEqual([]);
  });

  it('A1: stays useless when the owner begins another transaction', async () => {
    const connection = await begun();
    const tx = await fromConnection(connection);
    await connection.rollback();
    await expect(outbox.add(tx, note())).rejects.toMatchObject(ENDED);
    await connection.beginTransaction();
    await expect(outbox.add(tx, note())).rejects.toMatchObject(ENDED);
    await connection.commit();
    expect(await payloads()).toEqual([]);
  });

  it('A1: an add that nobody awaits is rolled back with what came before, or not written at all', async () => {
    for (let round = 0; round < 20; round++) {
      const connection = await begun();
      const tx = await fromConnection(connection);
      const adds = [outbox.add(tx, note('a')), outbox.add(tx, note('b', 'x'.repeat(600_000)))];
      const rollback = connection.rollback();
      await Promise.allSettled([...adds, rollback]);
      connection.destroy();
    }
    expect(await payloads()).toEqual([]);
  });

  it('A1: a connection of our own pool is as foreign as any other when its owner ends the transaction', async () => {
    const pool = createPool(schemas.shop.url, { connections: 1 });
    for (let round = 0; round < 20; round++) {
      const connection = await pool.getConnection();
      await connection.beginTransaction();
      const tx = await fromConnection(connection);
      const add = outbox.add(tx, note());
      const rollback = connection.rollback();
      await Promise.allSettled([add, rollback]);
      connection.release();
    }
    await pool.end();
    expect(await payloads()).toEqual([]);
  });

  it('A1: an add that nobody awaits is committed with what came before', async () => {
    const connection = await begun();
    const tx = await fromConnection(connection);
    const add = outbox.add(tx, note());
    await connection.commit();
    await add;
    expect(await payloads()).toHaveLength(1);
  });

  it("A1: leaves the owner's own savepoints alone, and follows them", async () => {
    const connection = await begun();
    const tx = await fromConnection(connection);
    await connection.query('SAVEPOINT owners');
    await outbox.add(tx, note('taken back'));
    await connection.query('ROLLBACK TO SAVEPOINT owners');
    await outbox.add(tx, note('kept'));
    await connection.query('RELEASE SAVEPOINT owners');
    await connection.commit();
    expect(await payloads()).toEqual([expect.stringContaining('kept')]);
  });

  it('A1: writes in a session without autocommit', async () => {
    const connection = await begun();
    await connection.query('SET autocommit = 0');
    await outbox.add(await fromConnection(connection), note());
    await connection.commit();
    expect(await payloads()).toHaveLength(1);
  });
});

describe('A2: another schema on the same connection', () => {
  it.each(['fromConnection', 'transaction on a pool of another library'])(
    'A2: %s writes where the session is',
    async (way) => {
      const other = schemas.fulfilment.name;
      await admin.query('DELETE FROM ??.outbox', [other]);
      const add = async (connection: Connection, schema: string, id: string) => {
        await connection.query(`USE ${schema}`);
        await connection.beginTransaction();
        await outbox.add(await fromConnection(connection), note(id));
        await connection.commit();
      };
      if (way === 'fromConnection') {
        const connection = await createConnection({ uri: schemas.shop.adminUrl });
        open.push(connection);
        await add(connection, schemas.shop.name, 'first');
        await add(connection, other, 'second');
      } else {
        const pool = createRawPool({ uri: schemas.shop.adminUrl, connectionLimit: 1 });
        for (const [schema, id] of [
          [schemas.shop.name, 'first'],
          [other, 'second'],
        ]) {
          await pool.query(`USE ${schema}`);
          await transaction(pool, (tx) => outbox.add(tx, note(id)));
        }
        await pool.end();
      }
      expect(await payloads()).toEqual([expect.stringContaining('first')]);
      expect(await payloads(other)).toEqual([expect.stringContaining('second')]);
    },
  );

  it('A2: a USE inside a transaction of our own pool is followed, and does not reach the next borrower', async () => {
    const other = schemas.fulfilment.name;
    await admin.query('DELETE FROM ??.outbox', [other]);
    const pool = createPool(schemas.shop.adminUrl, { connections: 1 });
    await transaction(pool, async (tx) => {
      await outbox.add(tx, note('here'));
      await tx.query(`USE ${other}`);
      await outbox.add(tx, note('there'));
    });
    await transaction(pool, (tx) => outbox.add(tx, note('here again')));
    await pool.end();
    expect(await payloads()).toEqual([expect.stringContaining('here'), expect.stringContaining('here again')]);
    expect(await payloads(other)).toEqual([expect.stringContaining('there')]);
  });
});

describe('A3: result options of a connection', () => {
  it.each<[string, ConnectionOptions]>([
    ['rowsAsArray', { rowsAsArray: true }],
    ['nestTables', { nestTables: true }],
    ['nestTables with a separator', { nestTables: '_' }],
    ['typeCast', { typeCast: (field) => `cast ${field.string()}` }],
    ['no typeCast', { typeCast: false }],
    ['dateStrings', { dateStrings: true, timezone: '+09:00' }],
    ['bigNumberStrings', { supportBigNumbers: true, bigNumberStrings: true, decimalNumbers: true }],
    ['namedPlaceholders', { namedPlaceholders: true }],
    ['multipleStatements', { multipleStatements: true }],
    ['queryFormat', { queryFormat: (sql: string) => `${sql} -- formatted` }],
    ['CLIENT_FOUND_ROWS off', { flags: ['-FOUND_ROWS'] }],
  ])('A3: %s changes neither what is written nor what is read', async (_, options) => {
    const connection = await begun(options);
    const tx = await fromConnection(connection);
    const messages = [note('small'), note('large', 'x'.repeat(600_000))];
    for (const message of messages) await outbox.add(tx, message);
    const own = withOwnOptions(tx);
    const read = 'SELECT 1 AS n, CAST(2 AS UNSIGNED) AS big, TIMESTAMP("2026-01-02 03:04:05.678") AS at, ? AS given';
    const [rows] = await own.execute<RowDataPacket[]>(read, [new Date('2026-01-02T03:04:05.678Z')]);
    expect(rows).toEqual([
      { n: 1, big: 2, at: new Date('2026-01-02T03:04:05.678Z'), given: '2026-01-02 03:04:05.678' },
    ]);
    await connection.commit();
    expect(await payloads()).toEqual(messages.map(({ payload }) => JSON.stringify(payload)));
  });
});

describe("A3: what other packages read on another library's connection", () => {
  it('A3: a stream of events is appended to and read', async () => {
    const connection = await begun({ rowsAsArray: true, dateStrings: true, timezone: '+09:00' });
    const tx = await fromConnection(connection);
    const counter: Aggregate<number, { type: 'Counted'; data: { by: number } }> = {
      category: 'counter',
      initial: 0,
      event: z.object({ type: z.literal('Counted'), data: z.object({ by: z.number() }) }),
      evolve: (state, { data }) => state + data.by,
    };
    for (const by of [1, 2]) {
      await append(tx, counter, await load(tx, counter, 'c1'), [{ type: 'Counted', data: { by } }]);
    }
    expect(await load(tx, counter, 'c1')).toMatchObject({ version: 2, state: 3 });
    await connection.rollback();
  });
});

describe('A4: a connection that is not utf8mb4', () => {
  const suits = { code: 'ONCEBOX_UNSUITABLE_CONNECTION', message: expect.stringContaining('utf8mb4') };
  it.each(['latin1', 'UTF8_GENERAL_CI', 'ascii', 'latin2'])('A4: %s is refused, in either way', async (charset) => {
    const connection = await begun({ charset });
    await expect(outbox.add(await fromConnection(connection), note())).rejects.toMatchObject(suits);
    await connection.rollback();
    const pool = createRawPool({ uri: schemas.shop.url, charset, connectionLimit: 1 });
    await expect(transaction(pool, (tx) => outbox.add(tx, note()))).rejects.toMatchObject(suits);
    await pool.end();
    expect(await payloads()).toEqual([]);
  });

  it('A4: a session whose charset was changed later is refused, on our own pool too', async () => {
    const connection = await begun();
    await connection.query('SET NAMES utf8mb3');
    await expect(outbox.add(await fromConnection(connection), note())).rejects.toMatchObject(suits);
    const pool = createPool(schemas.shop.url, { connections: 1 });
    const attempt = transaction(pool, async (tx) => {
      await tx.query('SET NAMES latin1');
      await outbox.add(tx, note());
    });
    await expect(attempt).rejects.toMatchObject(suits);
    await transaction(pool, (tx) => outbox.add(tx, note()));
    await pool.end();
    expect(await payloads()).toHaveLength(1);
  });
});

describe('A5: something that is no transaction', () => {
  const wrong: [string, unknown, string][] = [
    ['undefined', undefined, 'transaction(pool'],
    ['null', null, 'transaction(pool'],
    ['a number', 1, 'transaction(pool'],
    ['an object', {}, 'transaction(pool'],
    [
      'a Knex transaction',
      Object.assign(() => 1, { client: { acquireConnection: () => 1 }, commit: () => 1 }),
      'trx.client',
    ],
    ['Knex', Object.assign(() => 1, { client: { acquireConnection: () => 1 } }), 'knex.transaction'],
    ['a Drizzle transaction', { dialect: {}, session: {}, rollback: () => 1 }, 'drizzle('],
    ['a Kysely transaction', { selectFrom: () => 1, getExecutor: () => 1 }, 'Kysely'],
    ['a TypeORM manager', { getRepository: () => 1, connection: {}, query: () => 1 }, 'queryRunner.connect'],
    ['a TypeORM query runner', { startTransaction: () => 1, connect: () => 1, query: () => 1 }, 'queryRunner.connect'],
    ['a Sequelize transaction', { sequelize: {}, commit: () => 1 }, 'transaction.connection'],
    ['a MikroORM manager', { getTransactionContext: () => 1 }, 'MikroORM'],
    ['a Prisma client', { $queryRaw: () => 1 }, 'Prisma'],
    [
      'something that throws at every touch',
      new Proxy(
        {},
        {
          get: () => {
            throw new Error('no');
          },
          has: () => {
            throw new Error('no');
          },
          getPrototypeOf: () => {
            throw new Error('no');
          },
        },
      ),
      'transaction(pool',
    ],
  ];
  it.each(wrong)('A5: %s is refused by its name, with what to pass', async (_, value, recipe) => {
    const refused = { ...ENDED, message: expect.stringContaining(recipe) };
    // What a caller without types could pass.
    await expect(outbox.add(value as never, note())).rejects.toMatchObject(refused);
    await expect(fromConnection(value as never)).rejects.toMatchObject(refused);
    await expect(savepoint(value as never, async () => 1)).rejects.toMatchObject(refused);
  });

  it('A5: a handle is one to another copy of the package', async () => {
    vi.resetModules();
    const copy = await import('@oncebox/mysql');
    expect(copy.transaction).not.toBe(transaction);
    const pool = copy.createPool(schemas.shop.url, { connections: 1 });
    await copy.transaction(pool, (tx) => outbox.add(tx, note('a')));
    const connection = await begun();
    await outbox.add(await copy.fromConnection(connection), note('b'));
    await connection.commit();
    expect(await payloads()).toHaveLength(2);
    const ended = await copy.transaction(pool, async (tx) => tx);
    await expect(outbox.add(ended, note())).rejects.toMatchObject(ENDED);
    await pool.end();
  });

  it('A5: a connection of callbacks is as good as one of promises', async () => {
    const connection = createCallbackConnection(schemas.shop.url);
    await connection.promise().beginTransaction();
    await outbox.add(await fromConnection(connection), note());
    await connection.promise().commit();
    connection.destroy();
    expect(await payloads()).toHaveLength(1);
  });
});

describe('A3: an inbox on a pool of another library', () => {
  /**
   * Consumers whose handlers fail. A batch is tried in more than one way, so that an attempt may
   * call a handler twice.
   */
  const failing = new Set<string>();
  const handles = (name: string, seen: string[], ordered: boolean) =>
    defineConsumer({
      name,
      ordered,
      retryDelaysMs: [1],
      handlers: [
        on(Noted, {
          async handle(_tx, { payload: { id, text } }) {
            seen.push(id);
            if (text === 'fails' && failing.has(name)) throw new Error('for now');
          },
        }),
      ],
    });

  it.each([true, false])('A3: handles each message once, whatever its options (ordered: %s)', async (ordered) => {
    const pool = createRawPool({
      uri: schemas.fulfilment.adminUrl,
      connectionLimit: 3,
      rowsAsArray: true,
      dateStrings: true,
      timezone: '+09:00',
      bigNumberStrings: true,
      supportBigNumbers: true,
    });
    const name = `raw-${ordered}`;
    const seen: string[] = [];
    const inbox = createInbox(pool, handles(name, seen, ordered));
    await inbox.register();
    const received = (id: string, text = ''): Received => {
      const properties = { messageId: id, type: 'Noted', headers: { schemaversion: 1, 'cloudEvents:subject': 'k' } };
      return {
        id,
        type: 'Noted',
        version: 1,
        payload: JSON.stringify({ id, text }),
        lineage: {},
        aggregateId: 'k',
        source: undefined,
        occurredAt: undefined,
        routingKey: 'note.noted',
        original: {
          routingKey: 'note.noted',
          properties: JSON.stringify(properties),
          body: Buffer.from(JSON.stringify({ id, text })),
        },
      };
    };
    expect(await inbox.process(received('first'))).toMatchObject({ kind: 'handled' });
    expect(await inbox.process(received('first'))).toMatchObject({ kind: 'duplicate' });
    failing.add(name);
    const failed = await inbox.process(received('second', 'fails'));
    expect(failed.kind).toBe(ordered ? 'held' : 'retry');
    failing.delete(name);
    if (ordered) {
      expect(await inbox.process(received('third'))).toMatchObject({ kind: 'held' });
      await expect.poll(() => inbox.ordered?.handleHeld(), { timeout: 10_000 }).toMatchObject({ messageId: 'second' });
      await expect.poll(() => inbox.ordered?.handleHeld(), { timeout: 10_000 }).toMatchObject({ messageId: 'third' });
      expect(seen.filter((id, at) => id !== seen[at + 1])).toEqual(['first', 'second', 'third']);
    } else {
      expect(await inbox.process(received('second', 'fails'))).toMatchObject({ kind: 'handled' });
    }
    await pool.end();
  });
});
