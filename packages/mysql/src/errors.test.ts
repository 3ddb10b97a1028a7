import { describe, expect, it, vi } from 'vitest';
import { HOSTILE } from '../../../test/support/thrown.ts';
import * as errors from './errors.ts';

const {
  errnoOf,
  errorNameOf,
  isContention,
  isDuplicateKey,
  isFatal,
  isRefusal,
  isTransactionLost,
  isUnavailable,
  quotesData,
} = errors;
const SAYS = { isContention, isDuplicateKey, isFatal, isTransactionLost, isUnavailable, quotesData };

describe.each(HOSTILE)('%s', (_label, make) => {
  it.each(Object.entries(SAYS))('is no error of the server to %s', (_name, says) => {
    expect(says(make())).toBe(false);
  });

  it('has a number and a name of their types, or none', () => {
    expect(['number', 'undefined']).toContain(typeof errnoOf(make()));
    expect(['string', 'undefined']).toContain(typeof errorNameOf(make()));
  });
});

describe('an error of another copy of this package', () => {
  it.each([
    { code: 'ONCEBOX_COMMIT_UNKNOWN', unavailable: true, lost: false },
    { code: 'ONCEBOX_NO_CONNECTION', unavailable: true, lost: false },
    { code: 'ONCEBOX_TRANSACTION_LOST', unavailable: false, lost: true },
    { code: 'ONCEBOX_DATABASE_AWAY', unavailable: false, lost: false },
  ] as const)('is known by its code, $code', async ({ code, unavailable, lost }) => {
    vi.resetModules();
    const { DatabaseError } = await import('./errors.ts');
    expect(DatabaseError).not.toBe(errors.DatabaseError);
    const error = new DatabaseError(code, 'Pool is closed');
    expect(isUnavailable(error)).toBe(unavailable);
    expect(isTransactionLost(error)).toBe(lost);
  });
});

it('knows an outage that the driver gives no code', () => {
  expect(isUnavailable(new Error('Pool is closed.'))).toBe(true);
  expect(isUnavailable({ message: 'Pool is closed.' })).toBe(false);
});

it.each([1021, 1030, 1047, 1114, 1226, 1290, 3101])('takes what a server says of itself for a refusal: %i', (errno) => {
  expect([isRefusal({ errno }), isUnavailable({ errno })]).toEqual([true, true]);
});

it('takes what a server answers to COMMIT for a refusal, and a connection that broke for none', () => {
  const commit = (cause: object) => new errors.DatabaseError('ONCEBOX_COMMIT_UNKNOWN', 'x', { cause });
  expect(isRefusal(commit({ errno: 3100 }))).toBe(true);
  expect(isRefusal(commit({ code: 'ECONNRESET' }))).toBe(false);
});

it('takes no small number of others for an error of the file system of the server', () => {
  expect(isRefusal({ errno: 3 })).toBe(false);
  expect(isRefusal({ errno: 3, sqlState: 'HY000' })).toBe(true);
});
