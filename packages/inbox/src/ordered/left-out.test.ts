import { expect, it } from 'vitest';
import { LeftOut, pauseAfter } from './left-out.ts';

it('leaves a key out for a pause that grows, up to ten minutes, until the key is done', () => {
  let now = 0;
  const leftOut = new LeftOut(() => now);
  const pauses = Array.from({ length: 12 }, () => {
    const began = now;
    leftOut.add('a');
    expect(leftOut.keys()).toEqual(['a']);
    while (leftOut.keys().length > 0) now += 500;
    return now - began;
  });
  expect(pauses.slice(0, 3)).toEqual([1_000, 2_000, 4_000]);
  expect(pauses.at(-1)).toBe(600_000);
  leftOut.delete('a');
  leftOut.add('a');
  now += 1_000;
  expect(leftOut.keys()).toEqual([]);
  expect(pauseAfter(10_000)).toBe(600_000);
});

it('takes no more than 500 keys, and forgets those of which nothing was heard', () => {
  let now = 0;
  const leftOut = new LeftOut(() => now);
  const added = Array.from({ length: 501 }, (_, n) => leftOut.add(`key ${n}`));
  expect(added.filter(Boolean)).toHaveLength(500);
  expect(leftOut.add('key 0')).toBe(true);
  now += 602_001;
  expect(leftOut.add('another')).toBe(true);
  expect(leftOut.keys()).toEqual(['another']);
});
