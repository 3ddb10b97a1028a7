import { VersionConflictError } from '@oncebox/event-store';
import { DatabaseError } from '@oncebox/mysql';
import { describe, expect, it } from 'vitest';
import { problemOf } from './error-handler.ts';
import { Problem, problemSchema, problems, typeOf } from './problem.ts';

const typeNamed = (error: unknown) => problemOf(error).body.type;
const failed = (fields: object) => Object.assign(new Error("secret 'ada@example.com'"), fields);

describe('problemOf', () => {
  it.each([
    ['an outage', failed({ code: 'ECONNREFUSED' }), 'database-unavailable'],
    ['a server that became read-only', failed({ errno: 1290 }), 'database-unavailable'],
    ['contention that outlasted its retries', failed({ errno: 1213 }), 'database-unavailable'],
    [
      'a pool without a free connection',
      new DatabaseError('ONCEBOX_NO_CONNECTION', 'all in use'),
      'database-unavailable',
    ],
    ['a broken COMMIT', new DatabaseError('ONCEBOX_COMMIT_UNKNOWN', 'broke'), 'outcome-unknown'],
    ['a stream that somebody else has appended to', new VersionConflictError('order', 'x', 1), 'version-conflict'],
    ['another fault of ours', new DatabaseError('ONCEBOX_NOT_A_TRANSACTION', 'pool'), 'internal-error'],
    ['a duplicate key that nobody expects', failed({ errno: 1062 }), 'internal-error'],
    ['no Error at all', 'secret', 'internal-error'],
    ['undefined', undefined, 'internal-error'],
  ] as const)('%s', (_what, error, name) => {
    const { body, cause } = problemOf(error);
    expect(body.type).toBe(typeOf(name));
    expect(cause).toBe(error);
    expect(JSON.stringify(body)).not.toContain('secret');
  });

  it('does not keep what Express throws about a body, which may hold the body', () => {
    const problem = problemOf(failed({ status: 413, body: 'secret' }));
    expect(problem.body.type).toBe(typeOf('body-too-large'));
    expect(problem.cause).toBeUndefined();
    expect(typeNamed(failed({ status: 415 }))).toBe(typeOf('unsupported-media-type'));
    expect(typeNamed(failed({ status: 400 }))).toBe(typeOf('malformed-request'));
  });

  it('passes on a problem as it is', () => {
    const problem = new Problem('stale-version');
    expect(problemOf(problem)).toBe(problem);
  });
});

it('every problem fits its schema', () => {
  for (const name of Object.keys(problems) as (keyof typeof problems)[]) {
    expect(problemSchema.strict().safeParse(new Problem(name).body)).toMatchObject({ success: true });
  }
});
