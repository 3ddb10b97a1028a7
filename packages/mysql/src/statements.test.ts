import { describe, expect, it } from 'vitest';
import { splitStatements } from './statements.ts';

const texts = (source: string): string[] => splitStatements(source).map(({ text }) => text);

describe('splitStatements', () => {
  it('splits at semicolons, with or without one at the end', () => {
    expect(texts('DROP TABLE a;\nDROP TABLE b')).toEqual(['DROP TABLE a', 'DROP TABLE b']);
    expect(texts('DROP TABLE a; ;; \n')).toEqual(['DROP TABLE a']);
  });

  it.each([
    ['a string', `INSERT INTO t VALUES ('a;b')`],
    ['a string with a doubled quote', `INSERT INTO t VALUES ('it''s;')`],
    ['a string with an escaped quote', `INSERT INTO t VALUES ('it\\';')`],
    ['a string that ends in a backslash', `INSERT INTO t VALUES ('\\\\', ';')`],
    ['a double-quoted string', `INSERT INTO t VALUES ("it's;")`],
    ['a name in backticks, where a backslash escapes nothing', 'INSERT INTO `a;\\` VALUES (1)'],
    ['a comment to the end of the line', `INSERT INTO t -- it's;\nVALUES (1)`],
    ['a comment with a hash', `INSERT INTO t # it's;\nVALUES (1)`],
    ['a block comment', `INSERT INTO t /* it's; "\n */ VALUES (1)`],
  ])('does not split inside %s', (_where, statement) => {
    expect(texts(`${statement};\nDROP TABLE t;`)).toEqual([statement, 'DROP TABLE t']);
  });

  it('reads comment marks in a string as text, and two dashes without a space as arithmetic', () => {
    expect(texts(`INSERT INTO t VALUES ('-- /* #', 5--1); DROP TABLE t`)).toEqual([
      `INSERT INTO t VALUES ('-- /* #', 5--1)`,
      'DROP TABLE t',
    ]);
  });

  it('tells the line of the first word, behind comments', () => {
    const source = '-- why\nDROP TABLE a;\n\n/* two\nlines */ DROP\nTABLE b;';
    expect(splitStatements(source).map(({ line }) => line)).toEqual([2, 5]);
  });

  it('ends a statement behind its semicolon, so that what stands before is a prefix of the file', () => {
    const source = '-- a\nDROP TABLE a;\nDROP TABLE b';
    expect(splitStatements(source).map(({ end }) => source.slice(0, end))).toEqual(['-- a\nDROP TABLE a;', source]);
  });

  it('knows which statements commit by themselves', () => {
    const source = 'create table a (id INT); INSERT INTO a VALUES (1); WITH x AS (SELECT 1) DELETE FROM a';
    expect(splitStatements(source).map(({ commitsItself }) => commitsItself)).toEqual([true, false, false]);
  });

  it.each([
    ['DELIMITER //', /line 1: DELIMITER/],
    ['DROP TABLE a;\nSET @a = 1;', /line 2: .* begins with SET/],
    ['USE other;', /begins with USE/],
    ['START TRANSACTION;', /begins with START/],
    ['/*!40101 SET NAMES utf8 */;', /begins with "\/"/],
    ['/*M!100000 DROP TABLE a */;', /begins with "\/"/],
    ['CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW BEGIN SET NEW.a = 1; END;', /begins with END/],
    [`DROP TABLE a;\nINSERT INTO a VALUES ('b);`, /line 2: the quote/],
    ['DROP TABLE a; /* DROP TABLE b;', /line 1: the comment/],
  ])('refuses %j', (source, message) => {
    expect(() => splitStatements(source)).toThrow(
      expect.objectContaining({ code: 'ONCEBOX_MIGRATION_INVALID', message: expect.stringMatching(message) }),
    );
  });

  it('takes a megabyte of one string', () => {
    expect(texts(`INSERT INTO t VALUES ('${'x;'.repeat(500_000)}')`)).toHaveLength(1);
  });
});
