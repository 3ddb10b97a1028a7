/** The first pause of a key, in milliseconds, and the longest. */
const FIRST_MS = 1_000;
const LONGEST_MS = 600_000;

/** More keys than these are no trouble of single keys. They are parameters of each look, too. */
const MOST = 500;

/** Milliseconds after so many failures in a row. */
export const pauseAfter = (failures: number): number => Math.min(FIRST_MS * 2 ** (failures - 1), LONGEST_MS);

/**
 * Keys that this process leaves out of its looks for a while: not even their trouble could be
 * written down, and whoever looks for the key that has been due for longest would find the same one
 * again and again.
 */
export class LeftOut {
  readonly #keys = new Map<string, { readonly failures: number; readonly until: number }>();
  readonly #now: () => number;

  constructor(now = () => performance.now()) {
    this.#now = now;
  }

  /** Those that are left out now. */
  keys(): string[] {
    const now = this.#now();
    return [...this.#keys].filter(([, { until }]) => until > now).map(([key]) => key);
  }

  /** @returns whether it is; not when too many are. */
  add(key: string): boolean {
    const now = this.#now();
    // One that was handled by another process is not heard of again.
    for (const [each, { until }] of this.#keys) if (until + LONGEST_MS < now) this.#keys.delete(each);
    const failures = (this.#keys.get(key)?.failures ?? 0) + 1;
    if (failures === 1 && this.#keys.size >= MOST) return false;
    this.#keys.set(key, { failures, until: now + pauseAfter(failures) });
    return true;
  }

  delete(key: string): void {
    this.#keys.delete(key);
  }
}
