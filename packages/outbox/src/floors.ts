import { PARTITIONS } from './row.ts';

/** Every this many looks, one goes to the beginning. */
const FULL_EVERY = 2;

/**
 * Where to begin looking whether a partition has pending rows. Only whether: what is sent is read from the beginning.
 *
 * Settled rows leave entries in the index that each look walks again until purge removes them; on a fast drain that walk was the
 * dearest part. So a look begins after the last row that was settled. But rows commit out of the order of `seq`, and a late one
 * lies below that mark: every second look begins at zero, so a late commit waits for one look more than another.
 */
export class Floors {
  readonly #floors: string[] = Array.from({ length: PARTITIONS }, () => '0');
  #looks = 0;

  /** The floors for the next look. */
  next(): readonly string[] {
    this.#looks += 1;
    return this.#looks % FULL_EVERY === 0 ? NONE : [...this.#floors];
  }

  raise(last: ReadonlyMap<number, string>): void {
    for (const [partition, seq] of last) {
      if (BigInt(seq) > BigInt(this.#floors[partition] ?? '0')) this.#floors[partition] = seq;
    }
  }
}

const NONE: readonly string[] = Array.from({ length: PARTITIONS }, () => '0');
