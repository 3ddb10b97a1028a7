import { createPool, type Pool, type Transaction, transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { hold, park, postpone, settle, unblock, waitForHead } from '../../packages/outbox/src/settle.ts';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

let schemas: TestSchemas;
/** Two relays' worth. A statement that waits for a row of the other's fails at once. */
let pool: Pool;
let admin: Pool;
beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  const [url = ''] = schemas.relayUrls.split(',');
  pool = createPool(url, { connections: 2, session: { innodb_lock_wait_timeout: 1 } });
  admin = createPool(schemas.shop.adminUrl, { connections: 1 });
});
afterAll(async () => {
  await Promise.all([pool.end(), admin.end()]);
  await schemas.drop();
});
beforeEach(async () => {
  await admin.query('DELETE FROM outbox');
  await admin.query('DELETE FROM outbox_waiting');
});

const backoff = { firstMs: 1_000, mostMs: 300_000 };
type Row = Readonly<
  Record<'seq' | 'state' | 'held' | 'attempts' | 'error' | 'published' | 'ready' | 'waits' | 'due', unknown>
>;

/** As twoHalves makes them. */
const UNTOUCHED = {
  state: 'pending',
  held: 0,
  attempts: 0,
  error: null,
  published: 0,
  ready: 1,
  waits: 1,
  due: 0,
};

interface Case {
  readonly run: (tx: Transaction, half: Half) => Promise<void>;
  /**
   * What differs from UNTOUCHED in the row at this place of the half; undefined for a row that is
   * gone.
   */
  readonly leaves: (place: number, half: Half) => Partial<Row> | undefined;
  /** Entries are due before. */
  readonly due?: true;
}

const cases: Readonly<Record<string, Case>> = {
  'deletes what is published': {
    run: (tx, { seqs }) => settle(tx, seqs, { deleteRows: true }),
    leaves: () => undefined,
  },
  'marks what is published': {
    run: (tx, { seqs }) => settle(tx, seqs, { deleteRows: false }),
    leaves: () => ({ state: 'published', published: 1 }),
  },
  postpones: {
    run: (tx, { seqs }) => postpone(tx, seqs, 'refused', backoff),
    leaves: () => ({ held: 1, attempts: 1, error: 'refused', ready: 0, due: 'later' }),
  },
  holds: {
    run: (tx, { seqs }) => hold(tx, seqs),
    leaves: () => ({ held: 1 }),
    due: true,
  },
  parks: {
    run: (tx, { seqs }) => park(tx, seqs, 'unsendable', true),
    leaves: () => ({ state: 'parked', held: 1, attempts: 1, error: 'unsendable' }),
    due: true,
  },
  'parks what does not block': {
    run: (tx, { seqs }) => park(tx, seqs, 'unsendable', false),
    leaves: () => ({ state: 'parked', held: 0, attempts: 1, error: 'unsendable' }),
  },
  unblocks: {
    run: (tx, { seqs, keys }) => unblock(tx, seqs.slice(0, seqs.length / 2), keys),
    leaves: (place, { seqs }) => (place < seqs.length / 2 ? { waits: 0 } : { due: 1 }),
  },
  'waits for a head': {
    run: (tx, { seqs }) => waitForHead(tx, seqs),
    leaves: () => ({}),
    due: true,
  },
};

async function readRows(): Promise<Row[]> {
  const [rows] = await admin.query<(RowDataPacket & Row)[]>(
    `SELECT CAST(o.seq AS CHAR) AS seq, o.state, o.held, o.attempts, o.last_error AS error, o.published_at IS NOT NULL AS published,
            o.available_at <= UTC_TIMESTAMP(6) AS ready, w.seq IS NOT NULL AS waits,
            CASE WHEN w.due_at IS NULL THEN 0 WHEN w.due_at <= UTC_TIMESTAMP(6) THEN 1 ELSE 'later' END AS due
       FROM outbox AS o LEFT JOIN outbox_waiting AS w ON w.seq = o.seq ORDER BY o.seq`,
  );
  return rows.map((row) => ({ ...row, due: row.due === 'later' ? 'later' : Number(row.due) }));
}

/** The rows that a lane has which holds every other partition. */
interface Half {
  readonly seqs: string[];
  /** Each has two rows, far from each other. */
  readonly keys: string[];
}

async function twoHalves(rows: number): Promise<[Half, Half]> {
  await admin.query('INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload) VALUES ?', [
    Array.from({ length: rows }, (_, n) => [`id-${n}`, 'walk', `w${n % (rows / 2)}`, 'Step', '{}']),
  ]);
  await admin.query(
    'INSERT INTO outbox_waiting (seq, partition_id, aggregatetype, aggregateid) SELECT seq, partition_id, aggregatetype, aggregateid FROM outbox',
  );
  await admin.query('ANALYZE TABLE outbox, outbox_waiting');
  const [found] = await admin.query<(RowDataPacket & { seq: string })[]>(
    'SELECT CAST(seq AS CHAR) AS seq FROM outbox ORDER BY outbox.seq',
  );
  const seqs = found.map(({ seq }) => seq);
  const half = (odd: number): Half => ({
    seqs: seqs.filter((_, n) => n % 2 === odd),
    keys: Array.from({ length: rows / 4 }, (_, n) => `w${2 * n + odd}`),
  });
  return [half(0), half(1)];
}

// Where a pass has about half of all rows, an optimizer prefers to read the table whole; and of 1,000 values and more MariaDB makes a
// subquery. Either way it meets the rows of other lanes, and two that do so deadlock: both passes' messages would be sent again.
describe.each(Object.entries(cases))('a pass that %s', (_what, { run, leaves, due }) => {
  it.each([60, 300, 2_000])('does not wait for another one, with half of %i rows each', async (rows) => {
    const [ours, theirs] = await twoHalves(rows);
    if (due) await admin.query('UPDATE outbox_waiting SET due_at = UTC_TIMESTAMP(6)');
    await transaction(
      pool,
      async (tx) => {
        await run(tx, ours);
        await transaction(pool, (other) => run(other, theirs), { attempts: 1 });
      },
      { attempts: 1 },
    );
    const expected = Array.from({ length: rows }, (_, n): Row | undefined => {
      const half = n % 2 === 0 ? ours : theirs;
      const place = Math.floor(n / 2);
      const change = leaves(place, half);
      return change && { seq: half.seqs[place], ...UNTOUCHED, ...change };
    });
    expect(await readRows()).toEqual(expected.filter((row) => row !== undefined));
  });

  it('leaves alone what is not its own', async () => {
    const [ours] = await twoHalves(60);
    if (due) await admin.query('UPDATE outbox_waiting SET due_at = UTC_TIMESTAMP(6)');
    const before = (await readRows()).filter(({ seq }) => !ours.seqs.includes(String(seq)));
    await transaction(pool, (tx) => run(tx, ours));
    expect((await readRows()).filter(({ seq }) => !ours.seqs.includes(String(seq)))).toEqual(before);
  });
});

it.each(['1', '9223372036854775807', '9223372036854775808', '18446744073709551614'])(
  'deletes row %s, whatever a number of JavaScript holds',
  async (seq) => {
    await admin.query(
      "INSERT INTO outbox (seq, id, aggregatetype, aggregateid, type, payload) VALUES (?, 'id', 'walk', 'w', 'Step', '{}')",
      [seq],
    );
    await transaction(pool, (tx) => settle(tx, [seq], { deleteRows: true }));
    expect((await admin.query('SELECT seq FROM outbox'))[0]).toEqual([]);
  },
);
