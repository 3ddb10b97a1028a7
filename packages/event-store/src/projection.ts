import type { Transaction } from '@oncebox/mysql';
import type { Aggregate, Event, Stream } from './aggregate.ts';

/**
 * A table with one row for each stream: what its state amounts to, for queries over many. It is written in the transaction of each append
 * (call `write` with what `append` returns), so it is never behind; and since it holds nothing that the events do not, it may be emptied
 * and rebuilt (`rebuild`, `oncebox projection rebuild`).
 */
export interface Projection<State = unknown, E extends Event = Event> {
  /** What it is called by on the command line. */
  readonly name: string;
  readonly aggregate: Aggregate<State, E>;
  readonly table: string;
  /** The column that holds the stream's id. */
  readonly key: string;
  /** Inserts or overwrites the stream's row, every column of it. What it writes may depend on nothing but the stream. */
  write(tx: Transaction, stream: Stream<State>): Promise<void>;
}

/** What a module exports may be anything. */
export function isProjection(value: unknown): value is Projection {
  if (typeof value !== 'object' || value === null) return false;
  const texts = ['name', 'table', 'key'].every((field) => typeof Reflect.get(value, field) === 'string');
  return texts && typeof Reflect.get(value, 'write') === 'function' && Reflect.has(value, 'aggregate');
}
