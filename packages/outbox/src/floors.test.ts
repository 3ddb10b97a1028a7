import { describe, expect, it } from 'vitest';
import { Floors } from './floors.ts';

describe('Floors', () => {
  it('looks from the last settled row on, and from the beginning every second time, for rows that commit late', () => {
    const floors = new Floors();
    floors.raise(new Map([[3, '18446744073709551614']]));
    const looks = [floors.next(), floors.next(), floors.next(), floors.next()].map((look) => look[3]);
    expect(looks).toEqual(['18446744073709551614', '0', '18446744073709551614', '0']);
  });

  it('never goes back, and compares as numbers', () => {
    const floors = new Floors();
    floors.raise(new Map([[0, '100']]));
    floors.raise(new Map([[0, '99']]));
    expect(floors.next()[0]).toBe('100');
  });
});
