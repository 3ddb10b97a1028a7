import { tmpdir } from 'node:os';
import { createPool, type Pool } from '@oncebox/mysql';
import { afterAll, beforeAll, beforeEach, expect, inject, it } from 'vitest';
import { type Ended, startOncebox } from '../support/oncebox.ts';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

const CANARY = 'canary@example.com';

let schemas: TestSchemas;
let admin: Pool;
beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  admin = createPool(schemas.fulfilment.adminUrl, { connections: 2 });
});
afterAll(async () => {
  await admin.end();
  await schemas.drop();
});
beforeEach(async () => {
  await admin.query('DELETE FROM sagas');
  await saga('o-1', { state: 'stuck', problem: 'not answered, 3 times' });
  await saga('o-2', { due_at: '2026-01-01 12:00:30' });
  await saga('o-3', { state: 'completed', ended_at: '2026-01-01 12:00:30' });
});

async function saga(id: string, change: Readonly<Record<string, string>>): Promise<void> {
  const row = {
    name: 'order-fulfilment',
    id,
    data: JSON.stringify({ email: CANARY }),
    lineage: '{"correlationId":"corr-1"}',
    state: 'running',
    direction: 'forward',
    step: 'payment',
    attempts: 3,
    created_at: '2026-01-01 12:00:00',
    ...change,
  };
  await admin.query('INSERT INTO sagas (??) VALUES (?)', [Object.keys(row), Object.values(row)]);
  await admin.query('INSERT INTO saga_history (name, id, happened) VALUES (?, ?, ?)', [row.name, id, 'started']);
}

const oncebox = (...args: string[]): Promise<Ended> => {
  // The api's schema, which has no sagas, as well: it is passed over.
  const env = { API_DATABASE_URL: schemas.shop.url, WORKER_DATABASE_URL: schemas.fulfilment.url };
  return startOncebox(['saga', ...args], env, tmpdir()).ended;
};
const asJson = async (...args: string[]) => JSON.parse((await oncebox(...args, '--json')).stdout);

it('lists the sagas that have not ended, or those of a state', async () => {
  expect((await asJson('list')).map(({ id }: { id: string }) => id).sort()).toEqual(['o-1', 'o-2']);
  expect(await asJson('list', '--state', 'completed')).toMatchObject([{ id: 'o-3', schema: schemas.fulfilment.name }]);
  const { stdout } = await oncebox('list', '--state', 'stuck');
  expect(stdout).toMatch(/order-fulfilment +o-1 +stuck +payment +3 .*not answered, 3 times/);
});

it('shows where a saga stands and what happened to it, and none of its data', async () => {
  const { stdout, code } = await oncebox('show', 'o-1');
  expect(code).toBe(0);
  for (const part of ['corr-1', 'not answered, 3 times', 'started']) expect(stdout).toContain(part);
  expect(stdout).not.toContain(CANARY);
  expect(await asJson('show', 'o-2')).toMatchObject([{ state: 'running', dueAt: '2026-01-01T12:00:30.000000Z' }]);
  expect(await oncebox('show', 'o-9')).toMatchObject({ code: 1 });
});

it('resumes a stuck saga, which is then due, and leaves others alone', async () => {
  expect(await oncebox('resume', 'o-1', 'o-2', 'o-3', 'o-9')).toMatchObject({ code: 1 });
  const [rows] = await admin.query('SELECT id, attempts, due_at <= UTC_TIMESTAMP(6) AS due FROM sagas ORDER BY id');
  expect(rows).toMatchObject([
    { id: 'o-1', attempts: 0, due: 1 },
    { id: 'o-2', attempts: 3 },
    { id: 'o-3', attempts: 3, due: null },
  ]);
  expect(await oncebox('resume', '--all')).toMatchObject({ code: 0, stdout: 'Nothing matches\n' });
});

it('resumes all that are stuck', async () => {
  await saga('o-4', { state: 'stuck', problem: 'refused: closed' });
  expect((await asJson('resume', '--all')).counts).toEqual({ resumed: 2 });
  expect(await asJson('list', '--state', 'stuck')).toEqual([]);
});

it.each(['', 'dance', 'show', 'resume', 'resume o-1 --all'])(
  'called wrongly (%s) it says how to call it',
  async (line) => {
    const args = line.split(' ').filter((part) => part !== '');
    expect(await oncebox(...args)).toMatchObject({ code: 2, stderr: expect.stringContaining('Usage: oncebox saga') });
  },
);
