import { expect, it } from 'vitest';
import { etagOf, versionOf } from './if-match.ts';

it.each([1, 2, 4_294_967_295])('reads the ETag that it gives: version %i', (version) => {
  expect(versionOf(etagOf({ version }))).toBe(version);
  expect(versionOf(` ${etagOf({ version })} `)).toBe(version);
});

it.each(['"0"', '"01"', '"1x"', '"x"', '""', '"1e3"', '"-1"', '"99999999999"', 'W/"1"'])(
  '%s matches no version',
  (tag) => {
    expect(versionOf(tag)).toBe(0);
  },
);

it.each(['', '1', '*', '"1', '1"', '"1","2"', '"1", W/"2"', 'w/"1"', '"a b"', '"1"x'])(
  'refuses %j as malformed',
  (tag) => {
    expect(() => versionOf(tag)).toThrow(expect.objectContaining({ status: 400 }));
  },
);

it('demands one', () => {
  expect(() => versionOf(undefined)).toThrow(expect.objectContaining({ status: 428 }));
});
