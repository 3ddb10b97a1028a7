import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { describe, expect, test } from 'vitest';

/** A promise is worth its link: those of the documents lead to something that exists. */

const ROOT = join(import.meta.dirname, '..');
const DOCUMENTS = globSync(['*.md', 'docs/**/*.md', 'test/faults/*.md', '{apps,packages}/*/README.md'], {
  cwd: ROOT,
}).sort();

/** Without code, in which brackets are no links. */
const proseOf = (file: string): string =>
  readFileSync(join(ROOT, file), 'utf8')
    .replaceAll(/^(```|~~~)[\s\S]*?^\1/gm, '')
    .replaceAll(/`[^`\n]*`/g, '');

const linksOf = (file: string): string[] =>
  [...proseOf(file).matchAll(/\]\(([^)\s]+)[^)]*\)/g)]
    .map(([, target = '']) => target)
    .filter((target) => !/^(https?|mailto):/.test(target));

/** As GitHub names a heading: lower case, without punctuation, spaces as hyphens. */
const anchorsOf = (file: string): string[] =>
  [...readFileSync(join(ROOT, file), 'utf8').matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
      .replaceAll(/\s/g, '-'),
  );

function broken(file: string, link: string): string | undefined {
  const [path = '', anchor] = link.split('#', 2);
  const target = path === '' ? file : relative(ROOT, join(ROOT, dirname(file), decodeURI(path)));
  if (!existsSync(join(ROOT, target))) return `${link}: there is no ${target}`;
  if (anchor === undefined) return undefined;
  if (!target.endsWith('.md')) return `${link}: only headings of a document stay where they are`;
  return anchorsOf(target).includes(anchor) ? undefined : `${link}: ${target} has no such heading`;
}

describe('links', () => {
  test.each(DOCUMENTS)('of %s lead to files and headings that exist', (file) => {
    const problems = linksOf(file).map((link) => broken(file, link));
    expect(problems.filter((problem) => problem !== undefined)).toEqual([]);
  });

  test('of the guarantees show a test for each promise', () => {
    const promised = proseOf('docs/guarantees.md')
      .split(/^## /m)
      .find((section) => section.startsWith('Promised'));
    const rows = (promised ?? '').split('\n').filter((line) => line.startsWith('| ') && !line.startsWith('| promise'));
    expect(rows.length).toBeGreaterThan(5);
    const without = rows.filter((row) => !/\]\(\.\.\/test\/[\w/-]+\.test\.ts\)/.test(row));
    expect(without).toEqual([]);
  });
});

test('every code that an error can have has a line in docs/errors.md or docs/operations.md', () => {
  const sources = globSync('{apps,packages}/*/src/**/*.ts', { cwd: ROOT }).map((file) =>
    readFileSync(join(ROOT, file), 'utf8'),
  );
  const codes = new Set(sources.join('\n').match(/(?<=')ONCEBOX_[A-Z_]+(?=')/g));
  expect(codes.size).toBeGreaterThan(20);
  const documented = ['docs/errors.md', 'docs/operations.md']
    .map((file) => readFileSync(join(ROOT, file), 'utf8'))
    .join('\n');
  expect([...codes].filter((code) => !documented.includes(`\`${code}\``))).toEqual([]);
});
