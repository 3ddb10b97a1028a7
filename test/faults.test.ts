import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

/** The rows of the list of failures that this suite answers for; a test's name begins with its row's number. */
const ROWS = Array.from({ length: 54 }, (_, index) => index + 1);

test('every failure of the list has exactly one test in the fault suite', () => {
  const sources = globSync(join(import.meta.dirname, 'faults/**/*.test.ts')).map((file) => readFileSync(file, 'utf8'));
  const numbers = sources.flatMap((source) =>
    [...source.matchAll(/\b(?:it|test)(?:\.each\([^)]*\))?\(\s*['"`](\d+): /g)].map(([, number]) => Number(number)),
  );
  expect(numbers.toSorted((a, b) => a - b)).toEqual(ROWS);
});
