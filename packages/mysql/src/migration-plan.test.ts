import { describe, expect, it } from 'vitest';
import { type MigrationFile, parseMigration } from './migration-files.ts';
import type { LedgerEntry } from './migration-ledger.ts';
import { planMigrations } from './migration-plan.ts';

const file = (name: string, text: string): MigrationFile => parseMigration('shop', name, `folder/${name}`, text);

const first = file('0001_a.sql', 'DROP TABLE a;');
const second = file('0002_b.sql', 'DROP TABLE b;\nDROP TABLE c;\nDROP TABLE d;');

const finished = ({ set, name, checksum, statements }: MigrationFile): LedgerEntry => ({
  set_name: set,
  name,
  checksum,
  begun: statements.length,
  completed: statements.length,
  finished: true,
});
const stopped = (file: MigrationFile, completed: number, begun = completed): LedgerEntry => ({
  ...finished(file),
  checksum: file.checksumOf(completed),
  begun,
  completed,
  finished: false,
});

const plan = (files: readonly MigrationFile[], ledger: readonly LedgerEntry[]) =>
  planMigrations('shop', new Map([['shop', files]]), ledger);
const states = (files: readonly MigrationFile[], ledger: readonly LedgerEntry[]) =>
  plan(files, ledger).map(({ state, problem }) => [state, problem?.code]);

describe('planMigrations', () => {
  it('tells what has been applied from what is pending', () => {
    expect(states([first, second], [finished(first)])).toEqual([
      ['applied', undefined],
      ['pending', undefined],
    ]);
  });

  it('refuses an edited migration', () => {
    const edited = file(first.name, 'DROP TABLE a; -- for good');
    expect(states([edited], [finished(first)])).toEqual([['edited', 'ONCEBOX_MIGRATION_EDITED']]);
  });

  it('refuses a statement that was added to a finished migration', () => {
    const longer = file(first.name, 'DROP TABLE a;DROP TABLE b;');
    expect(states([longer], [finished(first)])).toEqual([['edited', 'ONCEBOX_MIGRATION_EDITED']]);
  });

  it('does not mind line endings or a byte order mark', () => {
    const windows = file(
      second.name,
      `\uFEFF${'DROP TABLE b;\nDROP TABLE c;\nDROP TABLE d;'.replaceAll('\n', '\r\n')}`,
    );
    expect(states([windows], [finished(second)])).toEqual([['applied', undefined]]);
  });

  it('refuses to go on when an applied migration is not on disk, renamed ones included', () => {
    expect(states([second], [finished(first), finished(second)])).toEqual([
      ['missing', 'ONCEBOX_MIGRATION_MISSING'],
      ['applied', undefined],
    ]);
  });

  it('refuses a new migration below one that has been applied', () => {
    expect(states([first, second], [finished(second)])).toEqual([
      ['out-of-order', 'ONCEBOX_MIGRATION_OUT_OF_ORDER'],
      ['applied', undefined],
    ]);
  });

  it('keeps the numbers of two sets apart', () => {
    const other = parseMigration('messaging', '0001_x.sql', '0001_x.sql', 'DROP TABLE x');
    const sets = new Map([
      ['messaging', [other]],
      ['shop', [first]],
    ]);
    expect(planMigrations('shop', sets, [finished(first)]).map(({ state }) => state)).toEqual(['pending', 'applied']);
  });

  describe('of a half-applied migration', () => {
    it('goes on behind the last completed statement', () => {
      expect(plan([second], [stopped(second, 1)])).toEqual([
        expect.objectContaining({ state: 'half-applied', completed: 1 }),
      ]);
      expect(states([second], [stopped(second, 1)])).toEqual([['half-applied', undefined]]);
    });

    it('lets what follows the last completed statement be edited', () => {
      const corrected = file(second.name, 'DROP TABLE b;\nDROP TABLE IF EXISTS c;');
      expect(states([corrected], [stopped(second, 1)])).toEqual([['half-applied', undefined]]);
    });

    it('refuses an edit of a completed statement', () => {
      const edited = file(second.name, 'DROP TABLE bb;\nDROP TABLE c;\nDROP TABLE d;');
      expect(states([edited], [stopped(second, 1)])).toEqual([['edited', 'ONCEBOX_MIGRATION_EDITED']]);
    });

    it('refuses when completed statements are gone', () => {
      const shorter = file(second.name, 'DROP TABLE b;');
      expect(states([shorter], [stopped(second, 2)])).toEqual([['edited', 'ONCEBOX_MIGRATION_EDITED']]);
    });

    it('explains how to settle a statement whose outcome nobody knows', () => {
      const [planned] = plan([second], [stopped(second, 1, 2)]);
      expect(planned?.problem?.code).toBe('ONCEBOX_MIGRATION_HALF_APPLIED');
      expect(planned?.problem?.message).toContain('statement 2 of 3');
      expect(planned?.problem?.message).toContain('line 2: DROP TABLE c');
      expect(planned?.problem?.message).toContain(`SET completed = 2, checksum = '${second.checksumOf(2)}'`);
      expect(planned?.problem?.message).toContain('SET begun = 1');
    });
  });
});
