import { describe, expect, it } from 'vitest';
import { readCount, readDuration, readMoment, readStates } from './arguments.ts';
import { UsageError } from './command.ts';

describe('arguments', () => {
  it.each([
    ['90s', 90],
    ['15m', 900],
    ['24h', 86_400],
    ['7d', 604_800],
  ])('reads the duration %s', (text, seconds) => {
    expect(readDuration('since', text)).toBe(seconds);
    expect(readMoment('since', text)).toEqual({ ago: seconds });
  });

  it.each([
    ['2026-01-31', '2026-01-31T00:00:00.000Z'],
    ['2026-01-31T08:00Z', '2026-01-31T08:00:00.000Z'],
    ['2026-01-31T08:00:30.5+02:00', '2026-01-31T06:00:30.500Z'],
  ])('reads the time %s', (text, iso) => {
    expect(readMoment('since', text)).toEqual({ at: new Date(iso) });
  });

  it.each(['', 'yesterday', '5', '5 m', '1w', '-5m', '2026-13-01', '2026-01-31T08:00'])(
    'refuses the time %j, and a time without a zone, which would differ from machine to machine',
    (text) => {
      expect(() => readMoment('since', text)).toThrow(UsageError);
      expect(() => readDuration('since', text)).toThrow(UsageError);
    },
  );

  it.each(['0', '-1', '1.5', 'ten', ''])('refuses the count %j', (text) => {
    expect(() => readCount('limit', text)).toThrow('--limit takes a whole number from 1 on');
  });

  it('reads states, each once, and names those that there are when one is unknown', () => {
    const states = ['dead', 'replay'] as const;
    expect(readStates(['replay', 'replay'], states)).toEqual(['replay']);
    expect(readStates(undefined, states)).toBeUndefined();
    expect(() => readStates(['lost'], states)).toThrow('--state takes one of dead, replay, not "lost"');
  });
});
