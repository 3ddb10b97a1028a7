import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { answersClaim, claimFor, claimIn, mayBeClaimed } from './claim.ts';
import { defineMessage, nextVersion } from './contract.ts';

const ID = '01a1fd1a-f5ca-7431-98b0-6d5fad2b72f1';
const v1 = defineMessage({
  type: 'Drawn',
  version: 1,
  aggregateType: 'picture',
  aggregateId: () => 'p',
  routingKey: 'picture.drawn',
  payload: z.looseObject({}),
});
const v2 = nextVersion(v1, { aggregateId: () => 'p', payload: v1.schema, upcast: (p) => p, overLimit: 'claim-check' });
const payload = claimFor(ID, '"é"');

describe('a claim check', () => {
  it('is found in the versions that may have one, and in no other', () => {
    expect(claimIn(v2, { version: 2, payload })).toMatchObject({ id: ID, bytes: 4 });
    expect(claimIn(v2, { version: 1, payload })).toBeUndefined();
    expect(claimIn(v1, { version: 1, payload })).toBeUndefined();
    expect([v1, v2].map(mayBeClaimed)).toEqual([false, true]);
  });

  it.each(['{}', '{"claimCheck":', '{"claimCheck":{"id":"../secrets","bytes":4,"sha256":""}}'])('is not %s', (other) =>
    expect(claimIn(v2, { version: 2, payload: other })).toBeUndefined(),
  );

  it('is answered by its payload alone', () => {
    const claim = claimIn(v2, { version: 2, payload }) ?? expect.fail();
    expect(['"é"', '"e"', '"ee"'].map((text) => answersClaim(claim, Buffer.from(text)))).toEqual([true, false, false]);
  });
});
