import { expect, test } from 'vitest';
import { pauseMs, persist } from './persist.ts';

test('pauses grow to ten seconds and never beyond', () => {
  const longest = (failures: number) => Math.max(...Array.from({ length: 200 }, () => pauseMs(failures)));
  expect(longest(0)).toBeLessThanOrEqual(100);
  expect(longest(5)).toBeGreaterThan(1_000);
  expect(longest(1_000)).toBeLessThanOrEqual(10_000);
});

test('what begins and at once ends is not begun in a hot loop, and every failure is told', async () => {
  const stop = new AbortController();
  const failures: unknown[] = [];
  let lives = 0;
  const ended = persist(
    async () => {
      lives++;
      if (lives % 2 === 0) throw new Error(`life ${lives}`);
      if (lives === 5) stop.abort();
    },
    stop.signal,
    (error) => failures.push(error),
  );
  const began = performance.now();
  await ended;
  expect(lives).toBe(5);
  expect(failures).toEqual([new Error('life 2'), new Error('life 4')]);
  expect(performance.now() - began).toBeGreaterThan(5);
});

test('a stop ends the pause at once', async () => {
  const stop = new AbortController();
  const ended = persist(
    async () => setImmediate(() => stop.abort()) && undefined,
    stop.signal,
    () => undefined,
  );
  const began = performance.now();
  await ended;
  expect(performance.now() - began).toBeLessThan(1_000);
});
