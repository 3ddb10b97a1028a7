import { table } from './table.ts';

/** Outcomes that are shown one by one when filters chose the messages; all of them are counted. */
export const SHOWN = 50;

interface Line<Outcome> {
  /** undefined for what was found nowhere. */
  readonly schema: string | undefined;
  readonly id: string;
  readonly outcome: Outcome;
}

/** What became of each of many messages. It keeps the first `most` of them and counts the rest, so that memory stays bounded. */
export class Report<Outcome extends string> {
  readonly #meanings: Readonly<Record<Outcome, string>>;
  readonly #most: number;
  readonly #lines: Line<Outcome>[] = [];
  readonly #counts = new Map<Outcome, number>();

  /** @param meanings each outcome in words for people. */
  constructor(meanings: Readonly<Record<Outcome, string>>, most: number) {
    this.#meanings = meanings;
    this.#most = most;
  }

  get total(): number {
    return this.#counts.values().reduce((sum, count) => sum + count, 0);
  }

  add(schema: string | undefined, outcomes: Iterable<readonly [id: string, outcome: Outcome]>): void {
    for (const [id, outcome] of outcomes) {
      this.#counts.set(outcome, (this.#counts.get(outcome) ?? 0) + 1);
      if (this.#lines.length < this.#most) this.#lines.push({ schema, id, outcome });
    }
  }

  /** JSON: `{ messages: [{ schema, id, outcome }], counts: { outcome: number } }`. */
  print(asJson: boolean): void {
    if (asJson) {
      console.log(JSON.stringify({ messages: this.#lines, counts: Object.fromEntries(this.#counts) }));
      return;
    }
    const rows = this.#lines.map(({ schema, id, outcome }) => [schema, id, this.#meanings[outcome]]);
    if (rows.length > 0) console.log(table([['SCHEMA', 'ID', 'OUTCOME'], ...rows]));
    if (rows.length > 0 && this.total > rows.length) console.log(`… of ${this.total} in all:`);
    if (this.total > rows.length) {
      console.log(Array.from(this.#counts, ([outcome, count]) => `${count} ${this.#meanings[outcome]}`).join('\n'));
    }
    if (this.total === 0) console.log('Nothing matches');
  }

  /** The exit code: 0 if every message met one of these. */
  exitCode(good: readonly Outcome[]): number {
    return this.#counts.keys().every((outcome) => good.includes(outcome)) ? 0 : 1;
  }
}
