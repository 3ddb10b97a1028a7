import { expect, test } from 'vitest';
import type { Figure, Sample } from '../bench/figure.ts';
import { judge, summarise } from '../bench/report.ts';

/** The arithmetic between what the benchmark measures and what it claims. */

const measured = (rate: number, lost = 0): Sample => ({ metrics: { 'messages/s': rate }, lost, duplicates: 0 });
const never = () => Promise.reject(new Error('not to be run'));
const figure: Figure = {
  name: 'relay',
  cases: [
    { name: 'drain', run: never },
    { name: 'bare', run: never },
  ],
  comparisons: [{ of: 'drain', to: 'bare', metric: 'messages/s', atLeast: 0.8 }],
  bounds: [{ of: 'bare', metric: 'messages/s', atMost: 1_500 }],
};

test('a ratio is the median of those of each repeat, so that a slow minute does not count twice', () => {
  const samples = new Map([
    ['drain', [measured(900), measured(90), measured(700)]],
    ['bare', [measured(1_000), measured(100), measured(1_000)]],
  ]);
  const [ratio, bound] = judge(figure, samples);
  expect(ratio).toMatchObject({ value: { median: 0.9, least: 0.7, most: 0.9 }, reached: true });
  expect(bound).toMatchObject({ value: { median: 1_000 }, reached: true });
});

test('a run that lost something counts neither by itself nor in a ratio, and stays in the report', () => {
  const samples = new Map([
    ['drain', [measured(5_000, 1), measured(100)]],
    ['bare', [measured(1_000), measured(1_000)]],
  ]);
  expect(judge(figure, samples)[0]).toMatchObject({ value: { median: 0.1, most: 0.1 }, reached: false });
  expect(summarise(figure, samples)[0]).toMatchObject({ lost: 1, metrics: { 'messages/s': { most: 100 } } });
});

test('nothing is claimed where every run lost something', () => {
  const samples = new Map([
    ['drain', [measured(5_000, 1)]],
    ['bare', [measured(1_000)]],
  ]);
  expect(judge(figure, samples).map(({ what }) => what)).toEqual(['bare: messages/s']);
});
