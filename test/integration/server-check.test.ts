import { assertSuitable, createPool, type Pool } from '@oncebox/mysql';
import { createPool as createRawPool } from 'mysql2/promise';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { createDatabase, type Database } from '../support/database.ts';

let database: Database;
let admin: Pool;
beforeAll(async () => {
  database = await createDatabase();
  admin = createPool(database.databaseUrl, { connections: 1 });
});
afterAll(async () => {
  await admin.end();
  await database.remove();
});

const UNSUITABLE = (setting: string) => ({
  code: 'ONCEBOX_UNSUITABLE_SERVER',
  message: expect.stringContaining(setting),
});

it('B2: a server with its defaults is suitable', async () => {
  await expect(assertSuitable(admin)).resolves.toBeUndefined();
});

it('B2: a pool of another library is asked in its own way and answers in ours', async () => {
  const pool = createRawPool({
    uri: database.databaseUrl,
    rowsAsArray: true,
    typeCast: (field) => `cast ${field.string()}`,
  });
  await expect(assertSuitable(pool)).resolves.toBeUndefined();
  await pool.end();
});

it('B2: a server that refuses the settings of our sessions is named with what it refused', async () => {
  const pool = createPool(database.databaseUrl, { connections: 1, session: { no_such_setting: 1 } });
  for (let round = 0; round < 2; round++) {
    await expect(assertSuitable(pool)).rejects.toMatchObject(UNSUITABLE('no_such_setting'));
  }
  await pool.end();
});

it.skipIf(inject('source') === 'given')('B2: a setting that Oncebox cannot live with is named', async () => {
  for (const [setting, value, usual] of [
    ['max_prepared_stmt_count', 0, 16_382],
    ['max_allowed_packet', 262_144, 67_108_864],
  ] as const) {
    await admin.query(`SET GLOBAL ${setting} = ${value}`);
    const pool = createPool(database.databaseUrl, { connections: 1 });
    await expect(assertSuitable(pool)).rejects.toMatchObject(UNSUITABLE(setting));
    await admin.query(`SET GLOBAL ${setting} = ${usual}`);
    await pool.end();
    const cured = createPool(database.databaseUrl, { connections: 1 });
    await expect(assertSuitable(cured)).resolves.toBeUndefined();
    await cured.end();
  }
});
