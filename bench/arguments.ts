import { parseArgs } from 'node:util';

export interface Arguments {
  readonly quick: boolean;
  readonly profile: boolean;
  readonly repeats: number;
  /** Names of figures; all of them when it is empty. */
  readonly only: readonly string[];
  /** Cases whose name contains this. */
  readonly match: string;
  readonly json: string | undefined;
  readonly help: boolean;
}

export const USAGE = `make bench ARGS="..."
  --quick             two minutes for everything: does it work? no number to believe
  --only relay,api    these figures alone: relay, worker, api, end-to-end, idle, scale, log
  --match deleting    of them, the cases whose name contains this
  --repeats 5         how often each case runs; 1 with --quick and --profile
  --profile           CPU profiles of the processes under measurement, and their top functions
  --json FILE         everything that was measured, as JSON`;

/** @throws TypeError for what it does not know */
export function readArguments(args: readonly string[], figures: readonly string[]): Arguments {
  const { values } = parseArgs({
    args: [...args],
    options: {
      quick: { type: 'boolean', default: false },
      profile: { type: 'boolean', default: false },
      repeats: { type: 'string' },
      only: { type: 'string', default: '' },
      match: { type: 'string', default: '' },
      json: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  const { quick, profile, match, json, help } = values;
  const only = values.only.split(',').filter((name) => name !== '');
  const unknown = only.filter((name) => !figures.includes(name));
  if (unknown.length > 0)
    throw new TypeError(`--only: there is no ${unknown.join(', ')}; there is ${figures.join(', ')}`);
  const repeats = Number(values.repeats ?? (quick || profile ? 1 : 5));
  if (!Number.isInteger(repeats) || repeats < 1) throw new TypeError('--repeats must be a whole number from 1');
  return { quick, profile, repeats, only, match, json, help };
}
