import { expect, test } from 'vitest';
import { kindOf } from './statement-kind.ts';

test.each([
  'COMMIT',
  ' commit ;',
  '/* a reason */ COMMIT',
  '-- a reason\nROLLBACK',
  '# a reason\nBEGIN',
  'START  TRANSACTION READ ONLY',
  'START/**/TRANSACTION',
  '--\nBEGIN',
  '--\n-- x\n--\nCOMMIT',
  '-- x\r\nBEGIN',
  '# x\r\nBEGIN',
  '-- x \u2028 y\nBEGIN',
  'ROLLBACK AND CHAIN',
  'CREATE TABLE t (a INT)',
  'create index i ON t (a)',
  'DROP TABLE t',
  'truncate t',
  'ALTER TABLE t ADD b INT',
  'LOCK TABLES t WRITE',
  'ANALYZE LOCAL TABLE t',
  'GRANT SELECT ON *.* TO a',
  "XA START 'x'",
])('%s ends a transaction', (sql) => {
  expect(kindOf(sql)).toBe('ends');
});

test.each([
  ['ROLLBACK TO SAVEPOINT a', 'plain'],
  ['ROLLBACK WORK TO a', 'plain'],
  ['SAVEPOINT a', 'plain'],
  ['(SELECT 1) UNION (SELECT 2)', 'plain'],
  ['WITH a AS (SELECT 1) SELECT * FROM a', 'plain'],
  ["INSERT INTO t VALUES ('COMMIT')", 'plain'],
  ['ANALYZE SELECT 1', 'plain'],
  ['SET @total = 0', 'plain'],
  ['SET @a = IF(1, 2, 3), @b = 2', 'plain'],
  ['SET @a = 1, SESSION sql_mode = 2', 'sets'],
  ['SET @a = 1, @@time_zone = 2', 'sets'],
  ['BEGIN NOT ATOMIC SELECT 1; END', 'calls'],
  ['--\nUSE t', 'moves'],
  ['SELECT GET_LOCK/**/(1, 0)', 'locks'],
  ['DROP TEMPORARY TABLE t', 'plain'],
  ['SET @total = 0, sql_mode = 1', 'sets'],
  ['SET SESSION sql_mode = ""', 'sets'],
  ['SET NAMES latin1', 'sets'],
  ['CREATE TEMPORARY TABLE t (a INT)', 'sets'],
  ['CREATE OR REPLACE TEMPORARY TABLE t (a INT)', 'sets'],
  ['USE tenant_3', 'moves'],
  ['SELECT GET_LOCK(?, 0) AS mine', 'locks'],
  ['CALL transfer(1, 2)', 'calls'],
  ['/*!50000 COMMIT */', 'calls'],
  ['/*M! COMMIT */', 'calls'],
])('%s is %s', (sql, kind) => {
  expect(kindOf(sql)).toBe(kind);
});
