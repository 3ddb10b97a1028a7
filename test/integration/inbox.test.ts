import { createInbox, defineConsumer, type Incoming, NonRetryableError, on } from '@oncebox/inbox';
import { defineMessage, type Received } from '@oncebox/message';
import { createPool, type Pool, type Transaction } from '@oncebox/mysql';
import { outbox } from '@oncebox/outbox';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest';
import { z } from 'zod';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

const OrderPlaced = defineMessage({
  type: 'OrderPlaced',
  version: 1,
  aggregateType: 'order',
  aggregateId: ({ order }) => order,
  routingKey: 'order.placed',
  payload: z.strictObject({ order: z.string() }),
});

let schemas: TestSchemas;
let pool: Pool;
beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  pool = createPool(schemas.fulfilment.adminUrl, { connections: 10 });
  await pool.query(
    'CREATE TABLE effects (consumer VARCHAR(50) NOT NULL, message_id VARBINARY(255) NOT NULL) ENGINE = InnoDB',
  );
});
afterAll(async () => {
  await pool.end();
  await schemas.drop();
});
beforeEach(async () => {
  for (const table of ['effects', 'processed_messages', 'outbox']) await pool.query('DELETE FROM ??', [table]);
});

const received = (given: Partial<Received> = {}): Received => ({
  id: uuidv7(),
  type: 'OrderPlaced',
  version: 1,
  payload: '{"order":"o-1"}',
  lineage: {},
  aggregateId: 'o-1',
  source: 'shop',
  occurredAt: new Date(),
  routingKey: 'order.placed',
  ...given,
});

type Order = Incoming<{ order: string }>;

const effect = async (tx: Transaction, { id }: { id: string }, consumer = 'c'): Promise<void> => {
  await tx.execute('INSERT INTO effects (consumer, message_id) VALUES (?, ?)', [consumer, Buffer.from(id)]);
};

/** An inbox whose handler makes one effect and then does `more`. */
const inboxOf = (name: string, more: (tx: Transaction, message: Order) => Promise<void> = async () => undefined) =>
  createInbox(
    pool,
    defineConsumer({
      name,
      handlers: [
        on(OrderPlaced, {
          async handle(tx, message) {
            await effect(tx, message, name);
            await more(tx, message);
          },
        }),
      ],
    }),
  );

async function rows(table: 'effects' | 'processed_messages' | 'outbox'): Promise<number> {
  const [[row]] = await pool.query<(RowDataPacket & { n: number })[]>('SELECT COUNT(*) AS n FROM ??', [table]);
  return Number(row?.n);
}
const counts = async () => ({ effects: await rows('effects'), processed: await rows('processed_messages') });

async function transactions(condition: string): Promise<number> {
  const [found] = await pool.query<RowDataPacket[]>(
    `SELECT 1 FROM information_schema.processlist p JOIN information_schema.innodb_trx t ON t.trx_mysql_thread_id = p.id
     WHERE p.db = ? AND ${condition}`,
    [schemas.fulfilment.name],
  );
  return found.length;
}
const openTransactions = () => transactions('TRUE');

/** Waits until a transaction waits for another's row in the inbox. The server renews its view only when nobody has read it for 100 ms. */
const someoneWaits = () =>
  expect.poll(() => transactions("t.trx_state = 'LOCK WAIT'"), { timeout: 20_000, interval: 200 }).toBe(1);

describe('once', () => {
  test('a message takes effect once, however often it comes', async () => {
    const inbox = inboxOf('c');
    const message = received();
    expect(await inbox.process(message)).toEqual({ kind: 'handled' });
    expect(await inbox.process(message)).toEqual({ kind: 'duplicate' });
    expect(await inbox.process(message)).toEqual({ kind: 'duplicate' });
    expect(await counts()).toEqual({ effects: 1, processed: 1 });
  });

  test('history has an effect only where the handler takes it, and else leaves no record that would stop the message itself', async () => {
    const message = received();
    const history = { ...message, replayed: true } as const;
    const inbox = inboxOf('c');
    expect(await inbox.process(history)).toEqual({ kind: 'skipped' });
    expect(await counts()).toEqual({ effects: 0, processed: 0 });
    expect(await inbox.process(message)).toEqual({ kind: 'handled' });

    const handling = on(OrderPlaced, { replays: true, handle: (tx, order) => effect(tx, order, 'reader') });
    const reader = createInbox(pool, defineConsumer({ name: 'reader', handlers: [handling] }));
    expect(await reader.process(history)).toEqual({ kind: 'handled' });
    expect(await reader.process(message)).toEqual({ kind: 'duplicate' });
    expect(await counts()).toEqual({ effects: 2, processed: 2 });
  });

  test('of two copies at the same time the second waits for the first, and is a duplicate when that commits', async () => {
    const entered = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    const inbox = inboxOf('c', () => {
      entered.resolve();
      return gate.promise;
    });
    const message = received();
    const first = inbox.process(message);
    await entered.promise;
    const second = inboxOf('c').process(message);
    await someoneWaits();
    gate.resolve();
    expect([await first, await second]).toEqual([{ kind: 'handled' }, { kind: 'duplicate' }]);
    expect(await counts()).toEqual({ effects: 1, processed: 1 });
  });

  test('of two copies at the same time the second is handled when the first fails', async () => {
    const entered = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    const failing = inboxOf('c', async () => {
      entered.resolve();
      await gate.promise;
      throw new Error('first');
    });
    const message = received();
    const first = failing.process(message);
    await entered.promise;
    const second = inboxOf('c').process(message);
    await someoneWaits();
    gate.resolve();
    expect([(await first).kind, (await second).kind]).toEqual(['retry', 'handled']);
    expect(await counts()).toEqual({ effects: 1, processed: 1 });
  });

  test('ids that differ in case, accents or trailing spaces are different messages', async () => {
    const inbox = inboxOf('c');
    for (const id of ['a', 'A', 'ä', 'á', 'a ', ' a', 'a\u0000', 'ss', 'ß']) {
      expect(await inbox.process(received({ id })), JSON.stringify(id)).toEqual({ kind: 'handled' });
    }
    expect(await counts()).toEqual({ effects: 9, processed: 9 });
  });

  test('an id of 255 bytes is kept whole', async () => {
    const inbox = inboxOf('c');
    const long = 'ü'.repeat(127);
    expect(await inbox.process(received({ id: `${long}a` }))).toEqual({ kind: 'handled' });
    expect(await inbox.process(received({ id: `${long}b` }))).toEqual({ kind: 'handled' });
    expect(await inbox.process(received({ id: `${long}a` }))).toEqual({ kind: 'duplicate' });
  });

  test('two consumers both handle the same message', async () => {
    const message = received();
    expect(await inboxOf('one').process(message)).toEqual({ kind: 'handled' });
    expect(await inboxOf('two').process(message)).toEqual({ kind: 'handled' });
    expect(await counts()).toEqual({ effects: 2, processed: 2 });
  });
});

describe('one transaction', () => {
  test('a handler that fails leaves neither effect nor inbox row nor outbox row, and the message can be handled later', async () => {
    const message = received();
    const failing = inboxOf('c', async (tx, { payload }) => {
      await outbox.add(tx, OrderPlaced.message(payload));
      throw new Error('after both writes');
    });
    expect(await failing.process(message)).toMatchObject({ kind: 'retry', error: { message: 'after both writes' } });
    expect({ ...(await counts()), outbox: await rows('outbox') }).toEqual({ effects: 0, processed: 0, outbox: 0 });
    expect(await inboxOf('c').process(message)).toEqual({ kind: 'handled' });
  });

  test('what a handler adds to the outbox commits with the inbox row', async () => {
    const inbox = inboxOf('c', (tx, { payload, id }) =>
      outbox.add(tx, OrderPlaced.message(payload, { causationId: id })),
    );
    await inbox.process(received());
    expect({ ...(await counts()), outbox: await rows('outbox') }).toEqual({ effects: 1, processed: 1, outbox: 1 });
  });

  test('a duplicate key in the handler is a failure, not a duplicate message', async () => {
    const inbox = inboxOf('c', async (tx, { id }) => {
      for (let i = 0; i < 2; i++)
        await tx.execute('INSERT INTO processed_messages (consumer, message_id) VALUES (?, ?)', ['x', Buffer.from(id)]);
    });
    expect(await inbox.process(received())).toMatchObject({ kind: 'retry', error: { errno: 1062 } });
    expect(await counts()).toEqual({ effects: 0, processed: 0 });
  });

  test('prepare runs before the transaction, and its result is given to handle', async () => {
    const steps: unknown[] = [];
    const inbox = createInbox(
      pool,
      defineConsumer({
        name: 'c',
        handlers: [
          on(OrderPlaced, {
            async prepare({ payload }) {
              // Polled, because the view is up to 100 ms old; a transaction of this message would stay open all the while.
              await expect.poll(openTransactions, { timeout: 5_000, interval: 200 }).toBe(0);
              steps.push('no transaction is open');
              return { price: payload.order.length };
            },
            async handle(tx, message, { price }) {
              steps.push(price);
              await effect(tx, message);
            },
          }),
        ],
      }),
    );
    expect(await inbox.process(received())).toEqual({ kind: 'handled' });
    expect(steps).toEqual(['no transaction is open', 3]);
  });
});

describe('verdicts', () => {
  test('a payload that its contract rejects is dead', async () => {
    const verdict = await inboxOf('c').process(received({ payload: '{"order":1}' }));
    expect(verdict).toMatchObject({ kind: 'dead', error: { code: 'ONCEBOX_INVALID_PAYLOAD' } });
    expect(await counts()).toEqual({ effects: 0, processed: 0 });
  });

  test('a NonRetryableError is dead and rolls back', async () => {
    const inbox = inboxOf('c', async () => {
      throw new NonRetryableError('no such order');
    });
    expect(await inbox.process(received())).toMatchObject({ kind: 'dead', error: { name: 'NonRetryableError' } });
    expect(await counts()).toEqual({ effects: 0, processed: 0 });
  });

  test.each([
    { type: 'OrderShipped', version: 1 },
    { type: 'OrderPlaced', version: 2 },
  ])('$type v$version, which nobody handles yet, is tried again later', async (unknown) => {
    const verdict = await inboxOf('c').process(received(unknown));
    expect(verdict).toMatchObject({ kind: 'retry', error: { code: 'ONCEBOX_UNKNOWN_MESSAGE' } });
  });

  test('a failing prepare is tried again later and leaves no row', async () => {
    const prepare = async (): Promise<number> => {
      throw new TypeError('the other service is away');
    };
    const handlers = [on(OrderPlaced, { prepare, handle: (tx: Transaction, message: Order) => effect(tx, message) })];
    const inbox = createInbox(pool, defineConsumer({ name: 'c', handlers }));
    expect(await inbox.process(received())).toMatchObject({ kind: 'retry', error: { name: 'TypeError' } });
    expect(await counts()).toEqual({ effects: 0, processed: 0 });
  });

  test('a connection that dies in the middle is an outage, and nothing is left of the attempt', async () => {
    const inbox = inboxOf('c', async (tx) => {
      const [[row]] = await tx.query<(RowDataPacket & { id: number })[]>('SELECT CONNECTION_ID() AS id');
      await pool.query(`KILL ${Number(row?.id)}`);
      await tx.query('SELECT 1');
    });
    expect((await inbox.process(received())).kind).toBe('unavailable');
    await expect.poll(counts).toEqual({ effects: 0, processed: 0 });
  });

  test('a database that is away is an outage, for a message and for the probe', async () => {
    const nowhere = createPool('mysql://root@127.0.0.1:1/nothing', { connections: 1 });
    const inbox = createInbox(nowhere, defineConsumer({ name: 'c', handlers: [on(OrderPlaced, { handle: effect })] }));
    const noConnection = { code: 'ONCEBOX_NO_CONNECTION', cause: { code: 'ECONNREFUSED' } };
    expect(await inbox.process(received())).toMatchObject({ kind: 'unavailable', error: noConnection });
    await expect(inbox.probe()).rejects.toMatchObject(noConnection);
    await nowhere.end();
  });

  test('the probe leaves nothing behind, and rejects where nothing can be written', async () => {
    await inboxOf('c').probe();
    expect(await counts()).toEqual({ effects: 0, processed: 0 });
    const variable = inject('servers').kind === 'mariadb' ? 'tx_read_only' : 'transaction_read_only';
    const readOnly = createPool(schemas.fulfilment.adminUrl, { connections: 1, session: { [variable]: 1 } });
    const handlers = [on(OrderPlaced, { handle: effect })];
    await expect(createInbox(readOnly, defineConsumer({ name: 'c', handlers })).probe()).rejects.toMatchObject({
      errno: 1792,
    });
    await readOnly.end();
  });
});

describe('a connection that is refused in prepare', () => {
  const preparing = (database: Pool) =>
    createInbox(
      database,
      defineConsumer({
        name: 'preparing',
        handlers: [
          on(OrderPlaced, {
            prepare: async () => {
              throw Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' });
            },
            handle: (tx, message) => effect(tx, message),
          }),
        ],
      }),
    );

  test('is an outage when the database is away as well, and costs no attempt', async () => {
    const away = createPool('mysql://a:b@127.0.0.1:1/none', { connections: 1 });
    expect(await preparing(away).process(received())).toMatchObject({ kind: 'unavailable' });
    await away.end();
  });

  test('is a failure when the database answers: somebody else is away', async () => {
    expect(await preparing(pool).process(received())).toMatchObject({ kind: 'retry' });
  });
});
