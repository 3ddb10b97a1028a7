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
const statements: [string, (tx: Transaction, half: Half) => Promise<void>][] = [
  ['deletes what is published', (tx, { seqs }) => settle(tx, seqs, { deleteRows: true })],
  ['marks what is published', (tx, { seqs }) => settle(tx, seqs, { deleteRows: false })],
  ['postpones', (tx, { seqs }) => postpone(tx, seqs, 'refused', backoff)],
  ['holds', (tx, { seqs }) => hold(tx, seqs)],
  ['parks', (tx, { seqs }) => park(tx, seqs, 'unsendable', true)],
  ['unblocks', (tx, { seqs, keys }) => unblock(tx, seqs.slice(0, seqs.length / 2), keys)],
  ['waits for a head', (tx, { seqs }) => waitForHead(tx, seqs)],
];

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
describe.each(statements)('a pass that %s', (_what, run) => {
  it.each([60, 300, 2_000])('does not wait for another one, with half of %i rows each', async (rows) => {
    const [ours, theirs] = await twoHalves(rows);
    await transaction(
      pool,
      async (tx) => {
        await run(tx, ours);
        await transaction(pool, (other) => run(other, theirs), { attempts: 1 });
      },
      { attempts: 1 },
    );
    expect(ours.seqs).toHaveLength(rows / 2);
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
