import { deadLettersOf, findHeldOf, findLettersOf } from '@oncebox/inbox';
import { createPool, type Pool } from '@oncebox/mysql';
import { eraseRows, findByKey } from '@oncebox/outbox';
import fc from 'fast-check';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { beforeEach, describe, expect, it } from 'vitest';
import {
  BEFORE,
  dead,
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

const CANARY = 'canary@example.com';
const ANNA = 'anna-4711';

const erase = async (...args: string[]) => {
  const { code, stdout, stderr } = await run('erase', '--json', ...args);
  const { found = [], counts = [] } = stdout === '' ? {} : JSON.parse(stdout);
  return {
    code,
    stderr,
    found,
    /** `<table> <outcome> <count>`, of all schemas. */
    counts: counts
      .map((each: { table: string; outcome: string; count: number }) => `${each.table} ${each.outcome} ${each.count}`)
      .toSorted(),
  };
};

/** A dead letter of welcome-email whose message has this key. @returns the id of the message. */
async function letter(key: string, state = 'dead', id = uuidv7()): Promise<string> {
  await dead(id, state);
  await fulfilment.query('UPDATE dead_letters SET body = ?, properties = ? WHERE message_id = ?', [
    `{"email":"${CANARY}"}`,
    JSON.stringify({ messageId: id, headers: { 'cloudEvents:subject': key } }),
    id,
  ]);
  return id;
}

async function held(key: string, ...ids: string[]): Promise<void> {
  for (const id of ids) {
    await fulfilment.query(
      `INSERT INTO held_messages (consumer, ordering_key, message_id, routing_key, properties, body)
       VALUES ('in-order', ?, ?, 'customer.created', '{}', ?)`,
      [key, id, CANARY],
    );
  }
  await fulfilment.query(
    "INSERT INTO held_keys (consumer, ordering_key, due_at) VALUES ('in-order', ?, '9999-01-01')",
    [key],
  );
}

const claimed = (id: string, pool = shop) =>
  pool.query('INSERT INTO claimed_payloads (id, payload) VALUES (?, ?)', [id, CANARY]);

async function saga(id: string, state: 'running' | 'completed'): Promise<void> {
  await fulfilment.query(
    `INSERT INTO sagas (name, id, data, lineage, state, direction, step, attempts, due_at, ended_at)
     VALUES ('shipping', ?, ?, '{}', ?, 'forward', 'ship', 1, ?, ?)`,
    [id, CANARY, state, state === 'running' ? WRITTEN : null, state === 'running' ? null : WRITTEN],
  );
  await fulfilment.query("INSERT INTO saga_history (name, id, happened) VALUES ('shipping', ?, 'began')", [id]);
}

/** The tables of both schemas in which something of a person still is. */
async function tablesWith(text: string): Promise<string[]> {
  const found: string[] = [];
  for (const [name, pool] of [
    ['shop', shop],
    ['fulfilment', fulfilment],
  ] as const) {
    const [tables] = await pool.query<RowDataPacket[]>(
      "SELECT TABLE_NAME AS name FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'BASE TABLE'",
    );
    for (const { name: table } of tables) {
      const [rows] = await pool.query<RowDataPacket[]>('SELECT * FROM ??', [table]);
      const values = rows.flatMap((row) => Object.values(row)).map((value) => String(value));
      if (values.some((value) => value.includes(text))) found.push(`${name}.${table}`);
    }
  }
  return found.toSorted();
}

beforeEach(() => fulfilment.query('DELETE FROM sagas'));

describe('oncebox erase', () => {
  it('K6: erases all that the tables of messaging hold of one key, and nothing of another', async () => {
    await register('in-order', BEFORE, 'Other');
    const announced = await written({ aggregateid: ANNA });
    await handled(announced, ...everybody);
    await claimed(announced);
    await written({ aggregateid: ANNA, state: 'parked' }); // released
    await letter(ANNA, 'replayed', announced);
    await letter(ANNA, 'discarded');
    const waiting = uuidv7();
    await held(ANNA, waiting);
    await claimed(waiting, fulfilment);
    await letter(ANNA, 'dead');
    await saga(ANNA, 'completed');
    const everywhere = [
      'fulfilment.claimed_payloads',
      'fulfilment.dead_letters',
      'fulfilment.held_messages',
      'fulfilment.sagas',
      'shop.claimed_payloads',
      'shop.outbox',
    ];
    expect(await tablesWith(CANARY)).toEqual(everywhere);

    const dry = await erase('--key', ANNA, '--discard', '--dry-run');
    expect(dry.code).toBe(0);
    expect(await tablesWith(CANARY)).toEqual(everywhere);
    const erased = await erase('--key', ANNA, '--discard');
    expect(erased.code).toBe(0);
    expect(erased.counts).toEqual([
      'claimed_payloads erased 1',
      'claimed_payloads erased 1',
      'dead_letters erased 3',
      'held_messages erased 1',
      'outbox erased 2',
      'sagas erased 1',
    ]);
    expect(dry.counts).toEqual(erased.counts.map((each: string) => each.replace('erased', 'would erase')));
    expect(await tablesWith(CANARY)).toEqual([]);
    expect(await tablesWith(ANNA)).toEqual([]);
    // The ids alone stay: a copy that still comes is a duplicate.
    const [ids] = await fulfilment.query<RowDataPacket[]>('SELECT 1 FROM processed_messages');
    expect(ids).toHaveLength(2);
    expect(await erase('--key', ANNA)).toMatchObject({ code: 0, counts: [] });

    const [bert, same] = [await written({ aggregateid: 'bert' }), await written({ aggregateid: `${ANNA} ` })];
    await letter('bert', 'discarded', bert);
    await letter(ANNA.toUpperCase(), 'discarded', same);
    expect(await erase('--key', ANNA)).toMatchObject({ code: 0, counts: [] });
  });

  it('K6: leaves what is not settled, says so and ends with 1: nothing that was promised is lost in silence', async () => {
    await register('in-order', BEFORE, 'Other');
    const pending = await written({ aggregateid: ANNA, state: 'pending' });
    await claimed(pending);
    const parked = await written({ aggregateid: ANNA, state: 'parked', held: 1 });
    const underWay = await written({ aggregateid: ANNA });
    await handled(underWay, 'welcome-email');
    const givenUp = await written({ aggregateid: ANNA });
    await handled(givenUp, 'customer-directory');
    await letter(ANNA, 'discarded', givenUp);
    const gone = await letter(ANNA, 'dead');
    const asked = await letter(ANNA, 'replay');
    await held(ANNA, uuidv7());
    await saga(ANNA, 'running');
    const left = [
      'claimed_payloads needed 1',
      'dead_letters dead 1',
      'dead_letters erased 1',
      'dead_letters replay 1',
      'held_messages held 1',
      'outbox erased 1',
      'outbox not handled 1',
      'outbox not published 1',
      'outbox parked 1',
      'sagas running 1',
    ];
    const dry = await erase('--key', ANNA, '--dry-run');
    expect(dry).toMatchObject({
      code: 1,
      counts: left.map((each) => each.replace('erased', 'would erase')).toSorted(),
    });
    expect(await erase('--key', ANNA)).toMatchObject({ code: 1, counts: left });
    const [rows] = await shop.query<RowDataPacket[]>('SELECT id FROM outbox ORDER BY seq');
    expect(rows.map(({ id }) => id)).toEqual([pending, parked, underWay]);
    expect((await deadLettersOf(fulfilment, [gone, asked])).map(({ state }) => state)).toEqual(['dead', 'replay']);

    const discarded = await erase('--key', ANNA, '--discard');
    expect(discarded).toMatchObject({ code: 1 });
    expect(discarded.counts).toEqual([
      'claimed_payloads needed 1',
      'dead_letters erased 2',
      'held_messages erased 1',
      'outbox erased 1',
      'outbox not published 1',
      'outbox parked 1',
      'sagas running 1',
    ]);
    const [keys] = await fulfilment.query<RowDataPacket[]>('SELECT ordering_key FROM held_keys');
    expect(keys).toEqual([]);
  });

  it('K6: verify does not call proven what was erased, and names none of it', async () => {
    const id = uuidv7({ msecs: Date.parse(`${WRITTEN}Z`) });
    await written({ id, aggregateid: ANNA });
    await handled(id, ...everybody);
    expect((await erase('--key', ANNA)).code).toBe(0);
    const { code, stdout } = await run('verify', '--json');
    expect(code).toBe(3);
    expect(JSON.parse(stdout)).toMatchObject({ verdict: 'unknowable', findings: [] });
    expect((await run('verify', '--since', '2026-01-01T12:00:01Z')).code).toBe(0);
  });

  it('erases what is of one type of aggregate, and leaves what does not tell its type', async () => {
    const customer = await written({ aggregateid: '42' });
    const order = await written({ aggregateid: '42', aggregatetype: 'order', type: 'OrderPlaced' });
    await handled(customer, ...everybody);
    await letter('42', 'discarded', customer);
    const unknown = await letter('42', 'discarded');
    await saga('42', 'completed');
    const erased = await erase('--key', '42', '--type', 'customer');
    expect(erased).toMatchObject({ code: 1 });
    expect(erased.counts).toEqual([
      'dead_letters erased 1',
      'dead_letters type unknown 1',
      'outbox erased 1',
      'sagas type unknown 1',
    ]);
    const [rows] = await shop.query<RowDataPacket[]>('SELECT id FROM outbox');
    expect(rows).toEqual([{ id: order }]);
    expect(await deadLettersOf(fulfilment, [customer, unknown])).toHaveLength(1);
  });

  it('lets the rest of a key that an ordered consumer holds go on', async () => {
    await register('in-order', BEFORE, 'Other');
    const [head, next] = [await written({ aggregateid: ANNA }), uuidv7()];
    await held(ANNA, head, next);
    await fulfilment.query('UPDATE held_keys SET due_at = NULL, attempts = 5, dead_letter = 1');
    expect((await erase('--key', ANNA, '--type', 'customer', '--discard')).counts).toContain('held_messages erased 1');
    expect(await findHeldOf(fulfilment, ANNA)).toEqual([{ consumer: 'in-order', messageId: next }]);
    const [[key]] = await fulfilment.query<RowDataPacket[]>(
      'SELECT due_at <= UTC_TIMESTAMP(6) AS due, attempts, dead_letter FROM held_keys',
    );
    expect(key).toEqual({ due: 1, attempts: 0, dead_letter: null });
  });

  it.each([
    ['no key', [], 'erase what?'],
    ['an argument', ['anna'], 'unexpected argument'],
    ['a schema, which would leave the others', ['--key', 'x', '--schema', 'shop'], '--schema'],
  ])('says what is wrong with %s', async (_case, args, message) => {
    const ended = await run('erase', ...args);
    expect(ended).toMatchObject({ code: 2, stdout: '' });
    expect(ended.stderr.split('\n')[0]).toContain(message);
  });

  it('K6: whatever a key is, exactly its rows and dead letters are found', async () => {
    const relay: Pool = createPool(schemas.relayUrls.split(',')[0] ?? '', { connections: 2 });
    const odd = fc.constantFrom(
      "O'Neill",
      'a\\',
      '%',
      '_',
      'é',
      'e\u0301',
      'E',
      'SKU7',
      'SKU7 ',
      '"}',
      '😀',
      '{"a":1}',
      '\n',
    );
    const keys = fc.oneof(odd, fc.string({ unit: 'grapheme', minLength: 1, maxLength: 60 }));
    await fc.assert(
      fc.asyncProperty(fc.uniqueArray(keys, { minLength: 2, maxLength: 6 }), async (all) => {
        await shop.query('DELETE FROM outbox');
        await fulfilment.query('DELETE FROM dead_letters');
        for (const key of all) {
          await written({ aggregateid: key });
          await letter(key, 'discarded');
        }
        const [key = '', ...others] = all;
        const rows = await findByKey(relay, key, undefined);
        expect(rows.map(({ aggregateId }) => aggregateId)).toEqual([key]);
        expect((await Array.fromAsync(findLettersOf(fulfilment, key))).flat()).toHaveLength(1);
        expect((await eraseRows(relay, key, rows)).size).toBe(1);
        const [kept] = await shop.query<RowDataPacket[]>('SELECT aggregateid FROM outbox ORDER BY seq');
        expect(kept.map(({ aggregateid }) => aggregateid)).toEqual(others);
      }),
      { numRuns: 40 },
    );
    await relay.end();
  });

  it('reads dead letters whose properties are no JSON', async () => {
    const [broken, fine] = [await letter(ANNA, 'discarded'), await letter(ANNA, 'discarded')];
    await fulfilment.query('UPDATE dead_letters SET properties = ? WHERE message_id = ?', [`{"${ANNA}`, broken]);
    const found = (await Array.fromAsync(findLettersOf(fulfilment, ANNA))).flat();
    expect(found.map(({ messageId }) => messageId)).toEqual([fine]);
  });
});
