import { drain } from '../drain.ts';
import type { Figure } from '../figure.ts';
import { KEYS } from '../messages.ts';
import type { Testbed } from '../testbed.ts';

/** What a drain costs when each message is kept in the log as well: over many keys, and over one, which waits for both confirms each time. */

const caseOf = (name: string, keys: number, log: boolean) => ({
  name: `${name}, ${log ? 'with' : 'without'} the log`,
  run: (bed: Testbed) =>
    drain(bed, {
      rows: keys === 1 ? bed.sizes.hotKey / 10 : bed.sizes.drain,
      bytes: 350,
      retentionHours: 0,
      keys,
      log,
    }),
});

const KINDS: readonly [name: string, keys: number][] = [
  ['drain 350 B', KEYS],
  ['hot key', 1],
];
const cases = KINDS.flatMap(([name, keys]) => [caseOf(name, keys, false), caseOf(name, keys, true)]);

export const log: Figure = {
  name: 'log',
  cases,
  comparisons: KINDS.map(([name]) => ({
    of: `${name}, with the log`,
    to: `${name}, without the log`,
    metric: 'messages/s',
  })),
  bounds: [],
};
