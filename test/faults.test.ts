import { existsSync, globSync, readFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { expect, test } from 'vitest';

/** The catalogue of faults promises a test for each row, so rows and tests must match. */

const FAULTS = join(import.meta.dirname, 'faults');

/** The rows of the catalogue: `| A6 | … | … | [file](../integration/file.test.ts) |`. */
const rows = readFileSync(join(FAULTS, 'README.md'), 'utf8')
  .split('\n')
  .map((line) => /^\| ([A-Z]?\d+) \|.*\|([^|]+)\|$/.exec(line))
  .filter((match) => match !== null)
  .map(([, id = '', links = '']) => ({
    id,
    files: [...links.matchAll(/\]\(([^)]+)\)/g)].map(([, link = '']) => nameOf(resolve(FAULTS, link))),
  }));

/**
 * Tests whose name begins with an id and a colon, `test.each` included, and so are the names of its cases. A skipped test shows nothing, and
 * a group is no test. Three digits are a status of HTTP.
 */
const tests = globSync('{faults,integration}/**/*.test.ts', { cwd: import.meta.dirname }).flatMap((file) => {
  const source = readFileSync(join(import.meta.dirname, file), 'utf8');
  const names = source.matchAll(/(?:(?<!\b(?:describe|suite|skip|todo))\(\s*|\{ name: )['"`]([A-Z]\d+|\d{1,2}): /g);
  return [...names].map(([, id = '']) => ({ id, file }));
});

function nameOf(path: string): string {
  return relative(import.meta.dirname, path);
}

test('the catalogue has the numbers 1 to 54, and no id twice', () => {
  const ids = rows.map(({ id }) => id);
  expect(ids.filter((id) => /^\d+$/.test(id)).map(Number)).toEqual(Array.from({ length: 54 }, (_, index) => index + 1));
  expect(ids.toSorted()).toEqual([...new Set(ids)].toSorted());
});

test.each(rows)('row $id names the files of its tests, all of them and no other', ({ id, files }) => {
  expect(files).not.toEqual([]);
  expect(files.filter((file) => !existsSync(join(import.meta.dirname, file)))).toEqual([]);
  const found = tests.filter((each) => each.id === id).map(({ file }) => file);
  expect([...new Set(found)].toSorted()).toEqual(files.toSorted());
});

test('every test with an id is in the catalogue, and one with a number is there once', () => {
  const known = new Set(rows.map(({ id }) => id));
  expect(tests.filter(({ id }) => !known.has(id))).toEqual([]);
  const numbers = tests.map(({ id }) => id).filter((id) => /^\d+$/.test(id));
  expect(numbers.toSorted()).toEqual([...new Set(numbers)].toSorted());
});
