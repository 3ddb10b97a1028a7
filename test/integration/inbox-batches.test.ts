import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import {
  createInbox,
  defineConsumer,
  type Handling,
  type Incoming,
  NonRetryableError,
  on,
  onBatch,
} from '@oncebox/inbox';
import { defineMessage, type Inbox, type Received, type Verdict } from '@oncebox/message';
import { createPool, type Pool, type Transaction } from '@oncebox/mysql';
import { outbox } from '@oncebox/outbox';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest';
import { z } from 'zod';
import { cutAtCommit } from '../support/cut-at-commit.ts';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

/** What comes in one turn of the loop and has one key is one batch. */

const Counted = defineMessage({
  type: 'Counted',
  version: 1,
  aggregateType: 'counter',
  aggregateId: ({ key }) => key,
  routingKey: 'counter.counted',
  payload: z.strictObject({ key: z.string(), n: z.int() }),
});
type Count = Incoming<{ key: string; n: number }>;

let schemas: TestSchemas;
let pool: Pool;
let admin: Pool;
beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  pool = createPool(schemas.fulfilment.url, { connections: 10 });
  admin = createPool(schemas.fulfilment.adminUrl, { connections: 1 });
  await admin.query(
    'CREATE TABLE effects (seq INT AUTO_INCREMENT PRIMARY KEY, message_id VARCHAR(50), `key` VARCHAR(50), n INT) ENGINE = InnoDB',
  );
  await admin.query('CREATE TABLE seats (id INT PRIMARY KEY, taken INT NOT NULL DEFAULT 0) ENGINE = InnoDB');
  await admin.query('CREATE TABLE ballast (id INT AUTO_INCREMENT PRIMARY KEY) ENGINE = InnoDB');
  for (const table of ['effects', 'seats', 'ballast']) {
    await admin.query('GRANT SELECT, INSERT, UPDATE, DELETE ON ?? TO ?@?', [
      table,
      new URL(schemas.fulfilment.url).username,
      '%',
    ]);
  }
});
afterAll(async () => {
  await Promise.all([pool.end(), admin.end()]);
  await schemas.drop();
});
beforeEach(async () => {
  for (const table of ['effects', 'seats', 'ballast', 'processed_messages'])
    await pool.query('DELETE FROM ??', [table]);
  await pool.query('INSERT INTO seats (id) VALUES (1), (2)');
});

let next = 0;
function count(given: Partial<Received> = {}, key = 'k'): Received {
  next += 1;
  return {
    id: uuidv7(),
    type: 'Counted',
    version: 1,
    payload: JSON.stringify({ key, n: next }),
    lineage: {},
    aggregateId: key,
    source: 'shop',
    occurredAt: new Date(),
    routingKey: 'counter.counted',
    ...given,
  };
}
const counts = (n: number, key = 'k'): Received[] => Array.from({ length: n }, () => count({}, key));

const effect = async (tx: Transaction, { id, payload: { key, n } }: Count): Promise<void> => {
  await tx.execute('INSERT INTO effects (message_id, `key`, n) VALUES (?, ?, ?)', [id, key, n]);
};
type Handle = (tx: Transaction, message: Count) => Promise<void>;

const inboxWith = (handling: Handling, given: { deadlineMs?: number; batch?: number } = {}): Inbox =>
  createInbox(pool, defineConsumer({ name: 'c', handlers: [handling], ...given }));
/** Its handler makes an effect and then does `more`. */
const inboxOf = (more: Handle = async () => undefined, given = {}): Inbox =>
  inboxWith(
    on(Counted, {
      async handle(tx, message) {
        await effect(tx, message);
        await more(tx, message);
      },
    }),
    given,
  );
const failing = (...ids: string[]) =>
  inboxOf(async (_tx, { id }) => {
    if (ids.includes(id)) throw new TypeError('bad');
  });

const processAll = (inbox: Inbox, messages: readonly Received[]): Promise<Verdict[]> =>
  Promise.all(messages.map((message) => inbox.process(message)));
const kinds = async (inbox: Inbox, messages: readonly Received[]): Promise<string[]> =>
  (await processAll(inbox, messages)).map(({ kind }) => kind);
const ids = (messages: readonly Received[]): string[] => messages.map(({ id }) => id);
const allOf = (n: number, kind: string): string[] => Array(n).fill(kind);

/** The messages that took effect, in the order in which they did. */
async function effects(): Promise<string[]> {
  const [rows] = await pool.query<(RowDataPacket & { id: string })[]>(
    'SELECT message_id AS id FROM effects ORDER BY seq',
  );
  return rows.map(({ id }) => id);
}
async function recorded(): Promise<string[]> {
  const [rows] = await pool.query<(RowDataPacket & { id: string })[]>(
    "SELECT CAST(message_id AS CHAR) AS id FROM processed_messages WHERE consumer = 'c'",
  );
  return rows.map(({ id }) => id);
}
async function expectEffects(messages: readonly Received[]): Promise<void> {
  expect(await effects()).toEqual(ids(messages));
  expect((await recorded()).toSorted()).toEqual(ids(messages).toSorted());
}

async function commitsDuring(work: () => Promise<unknown>): Promise<number> {
  let commits = 0;
  const listener = (): void => void commits++;
  subscribe('oncebox:transaction:committed', listener);
  await work();
  unsubscribe('oncebox:transaction:committed', listener);
  return commits;
}

describe('a batch', () => {
  test('messages that come together are handled in one transaction', async () => {
    const messages = counts(100);
    const inbox = inboxOf();
    expect(await commitsDuring(async () => expect(await kinds(inbox, messages)).toEqual(allOf(100, 'handled')))).toBe(
      1,
    );
    await expectEffects(messages);
  });

  test('a consumer without batches gives each a transaction', async () => {
    const messages = counts(10);
    const inbox = inboxOf(undefined, { batch: 1 });
    expect(await commitsDuring(async () => expect(await kinds(inbox, messages)).toEqual(allOf(10, 'handled')))).toBe(
      10,
    );
  });

  test('messages of one key take effect in the order of their arrival, within a batch and over batches', async () => {
    const messages = Array.from({ length: 300 }, (_, index) => count({}, `k${index % 7}`));
    expect(await kinds(inboxOf(undefined, { batch: 20 }), messages)).toEqual(allOf(300, 'handled'));
    const [rows] = await pool.query<(RowDataPacket & { key: string; id: string })[]>(
      'SELECT `key`, message_id AS id FROM effects ORDER BY seq',
    );
    expect(rows).toHaveLength(300);
    for (let k = 0; k < 7; k++) {
      const sent = messages.filter(({ aggregateId }) => aggregateId === `k${k}`);
      expect(rows.filter(({ key }) => key === `k${k}`).map(({ id }) => id)).toEqual(ids(sent));
    }
  });

  test('copies of a message within it, and of one handled before, are duplicates; the others take effect', async () => {
    const inbox = inboxOf();
    const [before, ...messages] = counts(10);
    const [twice] = messages;
    if (before === undefined || twice === undefined) throw new Error('no messages');
    expect(await inbox.process(before)).toEqual({ kind: 'handled' });
    const verdicts = await kinds(inbox, [...messages, twice, before]);
    expect(verdicts).toEqual([...allOf(9, 'handled'), 'duplicate', 'duplicate']);
    await expectEffects([before, ...messages]);
  });

  test('a whole batch that comes again is duplicates', async () => {
    const messages = counts(50);
    await processAll(inboxOf(), messages);
    expect(await kinds(inboxOf(), messages)).toEqual(allOf(50, 'duplicate'));
    await expectEffects(messages);
  });
});

describe('one that fails', () => {
  test('leaves neither effect nor record, the others commit, and its retry is no duplicate', async () => {
    const messages = counts(50);
    const bad = messages[20] ?? count();
    const verdicts = await processAll(failing(bad.id), messages);
    expect(verdicts[20]).toMatchObject({ kind: 'retry', error: { name: 'TypeError' } });
    const others = messages.filter((message) => message !== bad);
    expect(verdicts.filter(({ kind }) => kind === 'handled')).toHaveLength(49);
    await expectEffects(others);
    expect(await inboxOf().process(bad)).toEqual({ kind: 'handled' });
    await expectEffects([...others, bad]);
  });

  test('does not take its own copy in the same batch for a duplicate', async () => {
    let attempts = 0;
    const inbox = inboxOf(async () => {
      attempts += 1;
      if (attempts < 2) throw new Error('not yet');
    });
    const message = count();
    expect(await kinds(inbox, [message, message])).toEqual(['retry', 'handled']);
    await expectEffects([message]);
  });

  test('after such a batch the next ones are handled as before', async () => {
    const [first, second, third] = [counts(5), counts(5), counts(5)];
    const inbox = failing(first[1]?.id ?? '', second[2]?.id ?? '');
    expect(await kinds(inbox, first)).toEqual(['handled', 'retry', 'handled', 'handled', 'handled']);
    expect(await kinds(inbox, second)).toEqual(['handled', 'handled', 'retry', 'handled', 'handled']);
    expect(await kinds(inbox, third)).toEqual(allOf(5, 'handled'));
    expect(await kinds(inbox, third)).toEqual(allOf(5, 'duplicate'));
  });

  test('has what its handler wrote to the outbox taken back with it', async () => {
    const messages = counts(3);
    const bad = messages[1]?.id;
    const inbox = inboxOf(async (tx, { id, payload }) => {
      await outbox.add(tx, Counted.message(payload));
      if (id === bad) throw new Error('after the message was added');
    });
    expect(await kinds(inbox, messages)).toEqual(['handled', 'retry', 'handled']);
    const [rows] = await pool.query<RowDataPacket[]>('SELECT 1 FROM outbox');
    expect(rows).toHaveLength(2);
  });

  test('gets its own verdict: unreadable and given up are dead, unknown comes later', async () => {
    const messages = [
      count(),
      count({ payload: '{"key":1}' }),
      count({ type: 'Uncounted' }),
      count({}, 'hopeless'),
      count(),
    ].map((message) => ({ ...message, aggregateId: 'k' }));
    const inbox = inboxOf(async (_tx, { payload: { key } }) => {
      if (key === 'hopeless') throw new NonRetryableError('no');
    });
    expect(await processAll(inbox, messages)).toMatchObject([
      { kind: 'handled' },
      { kind: 'dead', error: { code: 'ONCEBOX_INVALID_PAYLOAD' } },
      { kind: 'retry', error: { code: 'ONCEBOX_UNKNOWN_MESSAGE' } },
      { kind: 'dead', error: { name: 'NonRetryableError' } },
      { kind: 'handled' },
    ]);
    expect(await effects()).toHaveLength(2);
    expect(await recorded()).toHaveLength(2);
  });

  test('can write nothing more afterwards, where it would be committed with the others', async () => {
    const messages = counts(3);
    const bad = messages[0]?.id;
    const late = Promise.withResolvers<unknown>();
    const inbox = inboxOf(async (tx, message) => {
      if (message.id !== bad) return;
      // Somebody forgot to await a chain of statements.
      void tx
        .query('DO 0')
        .then(() => tx.query('DO SLEEP(0.1)'))
        .then(() => effect(tx, { ...message, id: 'late' }))
        .then(late.resolve, late.resolve);
      throw new Error('bad');
    });
    expect(await kinds(inbox, messages)).toEqual(['retry', 'handled', 'handled']);
    expect(await late.promise).toMatchObject({ code: 'ONCEBOX_NOT_A_TRANSACTION' });
    expect(await effects()).toEqual(ids(messages.slice(1)));
  });

  test('at its deadline is alone to pay for it', async () => {
    const messages = counts(5);
    const bad = messages[2]?.id;
    const inbox = inboxOf(async (tx, { id }) => void (id === bad && (await tx.query('SELECT SLEEP(300)'))), {
      deadlineMs: 1_000,
    });
    const verdicts = await processAll(inbox, messages);
    expect(verdicts[2]).toMatchObject({ kind: 'retry', error: { code: 'ONCEBOX_HANDLER_DEADLINE' } });
    expect(verdicts.filter(({ kind }) => kind === 'handled')).toHaveLength(4);
    await expectEffects(messages.filter(({ id }) => id !== bad));
  });

  test('with its connection each time is alone with that outage, and the others take effect', async () => {
    const messages = counts(5);
    const bad = messages[2]?.id;
    const inbox = inboxOf(async (tx, { id }) => {
      if (id !== bad) return;
      const [[row]] = await tx.query<(RowDataPacket & { id: number })[]>('SELECT CONNECTION_ID() AS id');
      await pool.query(`KILL ${Number(row?.id)}`);
      await tx.query('SELECT 1');
    });
    expect(await kinds(inbox, messages)).toEqual(['handled', 'handled', 'unavailable', 'handled', 'handled']);
    await expectEffects(messages.filter(({ id }) => id !== bad));
  });
});

describe('the transaction', () => {
  test.each([
    { name: 'passes on', swallows: false },
    { name: 'keeps to itself', swallows: true },
  ])('that is the victim of a deadlock, which a handler $name, is repeated as a whole', async ({ swallows }) => {
    const holder = await pool.getConnection();
    await holder.query('START TRANSACTION');
    // The server rolls back whichever has changed less.
    await holder.query(`INSERT INTO ballast (id) VALUES ${Array(2_000).fill('(NULL)').join()}`);
    await holder.query('UPDATE seats SET taken = taken + 1 WHERE id = 2');
    const messages = counts(3);
    let runs = 0;
    const atSecond = Promise.withResolvers<void>();
    const inbox = inboxOf(async (tx, { id }) => {
      runs += 1;
      if (runs === 2) atSecond.resolve();
      const take = tx.query('UPDATE seats SET taken = taken + 1 WHERE id = ?', [id === messages[1]?.id ? 2 : 1]);
      await take.catch((error: unknown) => {
        if (!swallows) throw error;
      });
    });
    const verdicts = kinds(inbox, messages);
    await atSecond.promise; // the first seat is taken, the second about to be waited for
    await holder.query('UPDATE seats SET taken = taken + 1 WHERE id = 1');
    await holder.query('COMMIT');
    holder.release();
    expect(await verdicts).toEqual(allOf(3, 'handled'));
    expect(runs).toBeGreaterThan(3);
    await expectEffects(messages);
    const [seats] = await pool.query<RowDataPacket[]>('SELECT taken FROM seats ORDER BY id');
    expect(seats).toEqual([{ taken: 3 }, { taken: 2 }]);
  });

  test.each([
    { name: 'arrived', arrives: true },
    { name: 'did not', arrives: false },
  ])('whose COMMIT has no answer, and $name: each message takes effect once', async ({ arrives }) => {
    const cut = await cutAtCommit(schemas.fulfilment.url, arrives);
    const distant = createPool(cut.url, { connections: 3 });
    const messages = counts(5);
    const definition = defineConsumer({ name: 'c', handlers: [on(Counted, { handle: effect })] });
    const verdicts = await kinds(createInbox(distant, definition), messages);
    // No verdict that would acknowledge it without its effect. Alone, too, none of them gets an answer to its COMMIT.
    expect(verdicts.every((kind) => kind === (arrives ? 'duplicate' : 'unavailable'))).toBe(true);
    await distant.end();
    await cut.close();
    expect(await kinds(inboxOf(), messages)).toEqual(allOf(5, arrives ? 'duplicate' : 'handled'));
    await expectEffects(messages);
  });

  test('of a database that is away is an outage for all of them', async () => {
    const nowhere = createPool('mysql://root@127.0.0.1:1/nothing', { connections: 1 });
    const inbox = createInbox(nowhere, defineConsumer({ name: 'c', handlers: [on(Counted, { handle: effect })] }));
    expect(await kinds(inbox, counts(5))).toEqual(allOf(5, 'unavailable'));
    await nowhere.end();
  });
});

describe('onBatch', () => {
  const handlingOf = (given: (batch: readonly Count[]) => void): Handling =>
    onBatch(Counted, {
      async handle(tx, messages) {
        given(messages);
        await tx.query('INSERT INTO effects (message_id, `key`, n) VALUES ?', [
          messages.map(({ id, payload: { key, n } }) => [id, key, n]),
        ]);
      },
    });

  test('gets the messages together and in order', async () => {
    const sizes: number[] = [];
    const messages = counts(30);
    const inbox = inboxWith(handlingOf(({ length }) => void sizes.push(length)));
    expect(await kinds(inbox, messages)).toEqual(allOf(30, 'handled'));
    expect(sizes).toEqual([30]);
    await expectEffects(messages);
  });

  test('that throws gets each of them alone, so that the bad one is found', async () => {
    const messages = counts(10);
    const bad = messages[4]?.id;
    const inbox = inboxWith(
      handlingOf((batch) => {
        if (batch.some(({ id }) => id === bad)) throw new Error('one of them is bad');
      }),
    );
    expect((await kinds(inbox, messages)).map((kind) => kind === 'retry')).toEqual(
      messages.map(({ id }) => id === bad),
    );
    await expectEffects(messages.filter(({ id }) => id !== bad));
  });
});
