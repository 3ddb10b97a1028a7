import { CustomerCreatedV1 } from '@oncebox/contracts';
import { defineMessage } from '@oncebox/message';
import { createPool, type Pool, transaction } from '@oncebox/mysql';
import { outbox } from '@oncebox/outbox';
import type { RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { z } from 'zod';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

const Blob = defineMessage({
  type: 'BlobStored',
  version: 1,
  aggregateType: 'blob',
  aggregateId: () => 'b1',
  routingKey: 'blob.stored',
  payload: z.string(),
  maxBytes: 32 * 1024 * 1024,
});

let schemas: TestSchemas;
let pool: Pool;
let admin: Pool;

beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  pool = createPool(schemas.shop.url, { connections: 2 });
  admin = createPool(schemas.shop.adminUrl, { connections: 1 });
});
beforeEach(async () => {
  await admin.query('DELETE FROM outbox');
});
afterAll(async () => {
  await pool.end();
  await admin.end();
  await schemas.drop();
});

const rows = async (): Promise<RowDataPacket[]> => {
  const [all] = await admin.query<RowDataPacket[]>('SELECT * FROM outbox ORDER BY seq');
  return all;
};

const customer = {
  customerId: '019a0000-0000-7000-8000-000000000001',
  email: 'ada@example.com',
  name: 'Ada',
  version: 1,
};

describe('outbox.add', () => {
  it('writes one pending row with every column that the relay needs', async () => {
    const message = CustomerCreatedV1.message(customer, { correlationId: 'c1' });
    await transaction(pool, (tx) => outbox.add(tx, message));
    const [row, ...others] = await rows();
    expect(others).toEqual([]);
    expect(row).toMatchObject({
      id: message.id,
      aggregatetype: 'customer',
      aggregateid: customer.customerId,
      type: 'CustomerCreated',
      version: 1,
      payload: JSON.stringify(customer),
      headers: '{"correlationId":"c1"}',
      exchange: 'oncebox.events',
      routing_key: 'customer.created',
      delivery: 'required',
      when_parked: 'hold',
      state: 'pending',
      held: 0,
      attempts: 0,
      last_error: null,
      published_at: null,
    });
  });

  it('takes the defaults from the database for a plain INSERT of six columns', async () => {
    await pool.query(
      "INSERT INTO outbox (id, aggregatetype, aggregateid, type, version, payload) VALUES (UUID(), 't', 'é🚚', 'T', 1, '{}')",
    );
    const [row] = await rows();
    expect(row).toMatchObject({
      state: 'pending',
      held: 0,
      delivery: 'required',
      when_parked: 'hold',
      exchange: 'oncebox.events',
      routing_key: null,
      headers: null,
    });
    const [[expected]] = await admin.query<RowDataPacket[]>("SELECT CRC32('é🚚') % 16 AS p");
    expect(row?.['partition_id']).toBe(Number(expected?.['p']));
  });

  it("stamps rows by the database's clock in UTC, whatever the session's zone", async () => {
    await pool.query("SET time_zone = '-05:00'");
    await transaction(pool, (tx) => outbox.add(tx, CustomerCreatedV1.message(customer)));
    const [[age]] = await admin.query<RowDataPacket[]>(
      'SELECT TIMESTAMPDIFF(SECOND, created_at, UTC_TIMESTAMP(6)) AS age FROM outbox',
    );
    expect(Number(age?.['age'])).toBeLessThan(60);
    expect(Number(age?.['age'])).toBeGreaterThanOrEqual(0);
  });

  it('leaves no row when the transaction rolls back', async () => {
    const attempt = transaction(pool, async (tx) => {
      await outbox.add(tx, CustomerCreatedV1.message(customer));
      throw new Error('changed my mind');
    });
    await expect(attempt).rejects.toThrow('changed my mind');
    expect(await rows()).toEqual([]);
  });

  it('refuses a pool or a connection, to the compiler and at run time, and says what to pass', async () => {
    const message = CustomerCreatedV1.message(customer);
    // @ts-expect-error a pool is not a transaction
    await expect(outbox.add(pool, message)).rejects.toMatchObject({
      code: 'ONCEBOX_NOT_A_TRANSACTION',
      message: expect.stringContaining('pass tx'),
    });
    const connection = await pool.getConnection();
    // @ts-expect-error nor is a connection
    await expect(outbox.add(connection, message)).rejects.toMatchObject({ code: 'ONCEBOX_NOT_A_TRANSACTION' });
    connection.release();
    expect(await rows()).toEqual([]);
  });

  it('refuses the transaction of a closure that has ended', async () => {
    const tx = await transaction(pool, async (open) => open);
    await expect(outbox.add(tx, CustomerCreatedV1.message(customer))).rejects.toMatchObject({
      code: 'ONCEBOX_NOT_A_TRANSACTION',
    });
  });

  it('refuses a payload that breaks its contract before it writes anything', async () => {
    const attempt = transaction(pool, (tx) => outbox.add(tx, CustomerCreatedV1.message({ ...customer, version: 0 })));
    await expect(attempt).rejects.toMatchObject({ code: 'ONCEBOX_INVALID_PAYLOAD', issues: [{ path: 'version' }] });
    expect(await rows()).toEqual([]);
  });

  it('refuses an id that was used before, which would be a silently lost message', async () => {
    const message = CustomerCreatedV1.message(customer);
    await transaction(pool, (tx) => outbox.add(tx, message));
    await expect(transaction(pool, (tx) => outbox.add(tx, message))).rejects.toMatchObject({ errno: 1062 });
  });

  it('stores the largest payload that fits, and refuses one byte more at write time', async () => {
    const [[server]] = await admin.query<RowDataPacket[]>('SELECT @@max_allowed_packet AS packet');
    const limit = Math.min(16 * 1024 * 1024 - 1, Number(server?.['packet']) - 16 * 1024);
    // Two bytes are the quotes of the JSON string.
    const fits = 'x'.repeat(limit - 2);
    await transaction(pool, (tx) => outbox.add(tx, Blob.message(fits)));
    const attempt = transaction(pool, (tx) => outbox.add(tx, Blob.message(`${fits}x`)));
    await expect(attempt).rejects.toMatchObject({ code: 'ONCEBOX_MESSAGE_TOO_LARGE' });
    const [[stored]] = await admin.query<RowDataPacket[]>('SELECT OCTET_LENGTH(payload) AS bytes FROM outbox');
    expect(stored?.['bytes']).toBe(limit);
  });
});
