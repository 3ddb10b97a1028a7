import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { HOSTILE } from '../../../test/support/thrown.ts';
import { MessageError } from './errors.ts';
import { classOf, failureOf, fieldOf, isNonRetryable, nameOf, reasonOf, ThrownError } from './failure.ts';

/**
 * Makes values of every kind, and Errors to which any of them is assigned. A function, because
 * fast-check reads the values that it makes.
 */
const thrown: fc.Arbitrary<() => unknown> = fc.oneof(
  fc
    .anything({ withNullPrototype: true, withBigInt: true, withDate: true, withMap: true, withTypedArray: true })
    .map((value) => () => value),
  fc.constantFrom(...HOSTILE).map(([, make]) => make),
  fc
    .record(
      {
        name: fc.oneof(fc.string({ unit: 'binary' }), fc.anything()),
        message: fc.anything(),
        code: fc.oneof(fc.string({ unit: 'binary' }), fc.anything()),
        stack: fc.anything(),
        constructor: fc.anything(),
      },
      { requiredKeys: [] },
    )
    .map((fields) => () => Object.assign(new Error('x'), fields)),
);

describe('whatever was thrown', () => {
  it('has a name, a class and a reason that are text, well formed and bounded', () => {
    fc.assert(
      fc.property(thrown, (make) => {
        const value = make();
        for (const [write, most] of [
          [nameOf, 255],
          [classOf, 500],
          [reasonOf, 500],
        ] as const) {
          const written = write(value);
          expect(typeof written).toBe('string');
          expect(written.length).toBeGreaterThan(0);
          expect(written.length).toBeLessThanOrEqual(most);
          expect(written.isWellFormed()).toBe(true);
        }
      }),
    );
  });

  it('becomes an Error of which every field can be read, and which stays the same', () => {
    fc.assert(
      fc.property(thrown, (make) => {
        const error = failureOf(make());
        expect(failureOf(error)).toBe(error);
        expect(typeof error.name).toBe('string');
        expect(typeof error.message).toBe('string');
        expect(['string', 'undefined']).toContain(typeof error.stack);
        for (const field of ['code', 'errno', 'fatal', 'sqlState', 'cause', 'constructor']) Reflect.get(error, field);
      }),
    );
  });
});

describe.each(HOSTILE)('%s', (_label, make) => {
  it('can be named, classified and recorded, and quotes no data', () => {
    const written = [nameOf, classOf, reasonOf].map((write) => write(make()));
    const { message } = failureOf(make()) instanceof ThrownError ? failureOf(make()) : new Error('as it was');
    expect([...written, message].join(' ')).not.toMatch(/ada|\d{4}/i);
  });
});

describe('failureOf', () => {
  class OrderError extends Error {
    override readonly name = 'OrderError';
    readonly code = 'E_ORDER';
  }

  it.each([
    ['an Error of one of the classes at hand', new OrderError('x')],
    ['one with a cause', new Error('x', { cause: 5 })],
    ['a frozen one', Object.freeze(new Error('x'))],
    ['one of another realm', runInNewContext('new TypeError("x")')],
  ])('returns a sound Error as it is: %s', (_label, error) => {
    expect(failureOf(error)).toBe(error);
  });

  it.each([
    [undefined, 'ThrownError ONCEBOX_NOT_AN_ERROR: undefined was thrown: throw an Error'],
    ['ada', 'ThrownError ONCEBOX_NOT_AN_ERROR: a string was thrown: throw an Error'],
    [{ name: 'Ada' }, 'ThrownError ONCEBOX_NOT_AN_ERROR: an object of class Object was thrown: throw an Error'],
    [new Proxy(new Error(), {}), 'ThrownError ONCEBOX_NOT_AN_ERROR: a Proxy was thrown: throw an Error'],
    [{ code: 'E_CARD', errno: 5 }, 'ThrownError E_CARD: an object of class Object was thrown: throw an Error'],
    [
      Object.assign(new OrderError(), { name: null }),
      'ThrownError E_ORDER: an Error of class OrderError was thrown whose name is no text: leave the fields of an Error as they are',
    ],
  ])('says what was thrown, in words that a dead letter may quote %#', (value, reason) => {
    expect(reasonOf(failureOf(value))).toBe(reason);
  });

  it('keeps the server error number, by which a deadlock is known', () => {
    const error = Object.assign(new Error('Deadlock'), { errno: 1213, code: 'ER_LOCK_DEADLOCK', name: null });
    expect(failureOf(error)).toMatchObject({ errno: 1213, code: 'ER_LOCK_DEADLOCK' });
  });
});

describe('reasonOf', () => {
  it('quotes the message of a MessageError of another copy of this package, and of nothing else', async () => {
    vi.resetModules();
    const copy = await import('./errors.ts');
    expect(copy.MessageError).not.toBe(MessageError);
    const error = new copy.MessageError('ONCEBOX_INVALID_PAYLOAD', 'a.b: Required');
    expect(reasonOf(error)).toBe('MessageError ONCEBOX_INVALID_PAYLOAD: a.b: Required');
    expect(reasonOf(new TypeError('ada'))).toBe('TypeError');
  });
});

describe('fieldOf', () => {
  it('reads own and inherited fields of objects and functions, and nothing of the rest', () => {
    expect(fieldOf({ a: 1 }, 'a')).toBe(1);
    expect(fieldOf(Object.create({ a: 1 }), 'a')).toBe(1);
    expect(fieldOf('text', 'length')).toBe(undefined);
    expect(fieldOf(null, 'a')).toBe(undefined);
    expect(isNonRetryable(new Error('x'))).toBe(false);
  });
});
