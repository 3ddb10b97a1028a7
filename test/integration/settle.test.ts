import { createPool, type Pool, type Transaction, transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { hold, park, postpone, settle, unblock } from '../../packages/outbox/src/settle.ts';
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
const statements: [string, (tx: Transaction, seqs: string[]) => Promise<void>][] = [
  ['deletes what is published', (tx, seqs) => settle(tx, seqs, { deleteRows: true })],
  ['marks what is published', (tx, seqs) => settle(tx, seqs, { deleteRows: false })],
  ['postpones', (tx, seqs) => postpone(tx, seqs, 'refused', backoff)],
  ['holds', (tx, seqs) => hold(tx, seqs)],
  ['parks', (tx, seqs) => park(tx, seqs, 'unsendable', true)],
  ['unblocks', (tx, seqs) => unblock(tx, seqs, ['nobody'])],
];

/** @returns two lists of every other row, as two lanes have them that hold every other partition */
async function twoHalves(rows: number): Promise<[string[], string[]]> {
  await admin.query('INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload) VALUES ?', [
    Array.from({ length: rows }, (_, n) => [`id-${n}`, 'walk', `w${n}`, 'Step', '{}']),
  ]);
  await admin.query(
    'INSERT INTO outbox_waiting (seq, partition_id, aggregatetype, aggregateid) SELECT seq, partition_id, aggregatetype, aggregateid FROM outbox',
  );
  await admin.query('ANALYZE TABLE outbox, outbox_waiting');
  const [found] = await admin.query<(RowDataPacket & { seq: string })[]>(
    'SELECT CAST(seq AS CHAR) AS seq FROM outbox ORDER BY outbox.seq',
  );
  const seqs = found.map(({ seq }) => seq);
  return [seqs.filter((_, n) => n % 2 === 0), seqs.filter((_, n) => n % 2 === 1)];
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
    expect(ours).toHaveLength(rows / 2);
  });
});
