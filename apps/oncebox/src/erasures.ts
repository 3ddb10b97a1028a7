import type { EraseOutcome } from '@oncebox/inbox';
import { SHOWN } from './report.ts';
import type { Source } from './sources.ts';
import { table } from './table.ts';

type Outcome =
  | EraseOutcome
  | 'not published'
  | 'parked'
  | 'not handled'
  | 'on its way'
  | 'held'
  | 'running'
  | 'needed'
  | 'type unknown';
type Table = 'outbox' | 'dead_letters' | 'held_messages' | 'claimed_payloads' | 'sagas';

const MEANING: Readonly<Record<Outcome, string>> = {
  erased: 'erased',
  'not published': 'left: it is not published yet; run this again when it is',
  parked: 'left: its key waits behind it; "outbox retry" or "outbox release" first',
  'not handled': 'left: an expected consumer has not handled it; "oncebox verify" names it (--discard erases it)',
  'on its way':
    'left: a registered consumer has no record of its message, and may still handle it (--discard erases it)',
  dead: 'left: it is dead; "dead replay" or "dead discard" first (--discard erases it)',
  replay: 'left: its worker is to send it again (--discard erases it)',
  held: 'left: it waits behind a message that failed (--discard erases it)',
  running: 'left: the saga has not ended; "oncebox saga show" says where it stands',
  needed: 'left: its message is left, and has its payload here',
  'type unknown': 'left: nothing tells the type of its aggregate (without --type it is erased)',
};

interface Found {
  readonly schema: string;
  readonly table: Table;
  readonly id: string;
  readonly outcome: Outcome | 'would erase';
}

/** What was found of a key, and what became of it. It keeps the first ones and counts the rest. */
export class Erasures {
  readonly #dryRun: boolean;
  readonly #found: Found[] = [];
  readonly #counts = new Map<string, Omit<Found, 'id'> & { count: number }>();

  constructor(dryRun: boolean) {
    this.#dryRun = dryRun;
  }

  add({ schema }: Source, from: Table, id: string, what: Outcome): void {
    const outcome = this.#dryRun && what === 'erased' ? 'would erase' : what;
    const key = JSON.stringify([schema, from, outcome]);
    const counted = this.#counts.get(key) ?? { schema, table: from, outcome, count: 0 };
    counted.count += 1;
    this.#counts.set(key, counted);
    if (this.#found.length < SHOWN) this.#found.push({ schema, table: from, id, outcome });
  }

  print(asJson: boolean): void {
    const counts = [...this.#counts.values()];
    if (asJson) {
      console.log(JSON.stringify({ found: this.#found, counts }));
      return;
    }
    if (counts.length === 0) {
      console.log('Nothing is stored of this key in the tables of messaging');
      return;
    }
    const rows = this.#found.map((each) => [each.schema, each.table, each.id, meaning(each.outcome)]);
    console.log(`${table([['SCHEMA', 'TABLE', 'ID', 'OUTCOME'], ...rows])}\n`);
    console.log(
      table([
        ['SCHEMA', 'TABLE', 'COUNT', 'OUTCOME'],
        ...counts.map((each) => [each.schema, each.table, each.count, meaning(each.outcome)]),
      ]),
    );
  }

  /** 0 if nothing is left. */
  exitCode(): number {
    const isLeft = ({ outcome }: { outcome: Found['outcome'] }) => outcome !== 'erased' && outcome !== 'would erase';
    return this.#counts.values().some(isLeft) ? 1 : 0;
  }
}

const meaning = (outcome: Found['outcome']): string =>
  outcome === 'would erase' ? 'would be erased' : MEANING[outcome];
