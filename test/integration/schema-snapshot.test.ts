import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createPool, type Pool } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

const servers = inject('servers');
const SNAPSHOT = join(import.meta.dirname, '../../migrations/snapshots', `${servers.kind}.sql`);

let schemas: TestSchemas;
let shop: Pool;
let fulfilment: Pool;

beforeAll(async () => {
  schemas = await createSchemas(servers);
  shop = createPool(schemas.shop.adminUrl, { connections: 1 });
  fulfilment = createPool(schemas.fulfilment.adminUrl, { connections: 1 });
});
afterAll(async () => {
  await shop.end();
  await fulfilment.end();
  await schemas.drop();
});

/** Without what depends on the rows and not on the migrations. */
async function describeSchema(title: string, pool: Pool): Promise<string> {
  const [tables] = await pool.query<RowDataPacket[]>('SHOW TABLES');
  const names = tables.map((row) => String(Object.values(row)[0])).sort();
  const statements: string[] = [];
  for (const name of names) {
    const [[row]] = await pool.query<RowDataPacket[]>('SHOW CREATE TABLE ??', [name]);
    statements.push(`${String(row?.['Create Table']).replace(/ AUTO_INCREMENT=\d+/, '')};`);
  }
  return [`-- ${title}`, ...statements].join('\n\n');
}

it(`makes the schemas of migrations/snapshots/${servers.kind}.sql (UPDATE_SNAPSHOTS=1 accepts new ones)`, async () => {
  const schema = `${await describeSchema('shop', shop)}\n\n${await describeSchema('fulfilment', fulfilment)}\n`;
  if (process.env['UPDATE_SNAPSHOTS'] === '1') writeFileSync(SNAPSHOT, schema);
  expect(schema).toBe(existsSync(SNAPSHOT) ? readFileSync(SNAPSHOT, 'utf8') : 'a snapshot: there is none yet');
});

describe('the e-mail of a customer', () => {
  const add = (email: string) =>
    shop.query("INSERT INTO customers (id, email, name) VALUES (UUID(), ?, 'somebody')", [email]);

  it('is taken in any case, beyond ASCII too', async () => {
    await add('Jose@Example.com');
    await expect(add('jOSE@example.COM')).rejects.toMatchObject({ errno: 1062 });
    await add('ÉMILE@example.com');
    await expect(add('émile@example.com')).rejects.toMatchObject({ errno: 1062 });
  });

  it('is another one with another accent, or with a space behind it', async () => {
    await add('renee@example.com');
    await add('renée@example.com');
    await add('renee@example.com ');
  });

  it('keeps the case in which it was given', async () => {
    await add('MiXed@example.com');
    const [rows] = await shop.query<RowDataPacket[]>("SELECT email FROM customers WHERE email = 'MiXed@example.com'");
    expect(rows).toEqual([{ email: 'MiXed@example.com' }]);
  });

  it.each(['', null])('cannot be %j', async (email) => {
    await expect(
      shop.query("INSERT INTO customers (id, email, name) VALUES (UUID(), ?, 'x')", [email]),
    ).rejects.toThrow();
  });
});

it('shows a doubled e-mail as two rows', async () => {
  const send = () =>
    fulfilment.query(
      "INSERT INTO emails (message_id, customer_id, recipient, subject, body) VALUES ('same', UUID(), 'a', 'b', 'c')",
    );
  await send();
  await send();
  const [rows] = await fulfilment.query<RowDataPacket[]>("SELECT id FROM emails WHERE message_id = 'same'");
  expect(rows).toHaveLength(2);
});
