import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { UsageError } from './command.ts';
import { projectionCommand } from './projection.ts';
import { findModules } from './projection-modules.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'oncebox-projection-'));
  writeFileSync(join(folder, 'none.js'), 'export const orders = { name: "orders" };');
});
afterAll(() => rmSync(folder, { recursive: true }));

it.each([
  [[], 'rebuild?'],
  [['drop'], 'there is no "projection drop"'],
  [['rebuild', '--module', 'orders.ts'], '--module takes VARIABLE:file'],
  [['rebuild', '--module', 'API_DATABASE_URL:nowhere.ts'], 'there is no file'],
])('called with %j says what is wrong', async (args, complaint) => {
  const called = projectionCommand.run(args);
  await expect(called).rejects.toBeInstanceOf(UsageError);
  await expect(called).rejects.toThrow(complaint);
});

it('says which module exports no projection', async () => {
  const called = projectionCommand.run(['rebuild', '--module', `API_DATABASE_URL:${join(folder, 'none.js')}`]);
  await expect(called).rejects.toThrow('none.js exports no projection');
});

it('finds what the package.json of this repository lists', () => {
  const file = join(import.meta.dirname, '../../api/src/orders/projection.ts');
  expect(findModules(undefined)).toEqual([{ variable: 'API_DATABASE_URL', file }]);
});
