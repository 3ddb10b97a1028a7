import { expect, test } from 'vitest';
import { kindOf } from './statement-kind.ts';

test.each([
  'COMMIT',
  ' commit ;',
  '/* a reason */ COMMIT',
  '-- a reason\nROLLBACK',
  '# a reason\nBEGIN',
  'START  TRANSACTION READ ONLY',
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
