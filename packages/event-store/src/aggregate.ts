import type { Lineage } from '@oncebox/message';

/** Something that happened. `data` is what JSON can hold. */
export interface Event {
  /** PascalCase: `OrderPlaced`. */
  readonly type: string;
  readonly data: unknown;
}

/** An event as it is stored. */
export type Recorded<E extends Event> = E & {
  /** Its place in the stream, from 1 without gaps. */
  readonly version: number;
  /** By the database's clock, in whole milliseconds. */
  readonly occurredAt: Date;
  readonly lineage: Lineage;
};

/** Checks what comes out of the database. A zod schema is one. */
export interface Parser<T> {
  /** @throws what says in which way the value is none. */
  parse(value: unknown): T;
}

// Methods, not function properties: their parameters compare bivariantly, so that an `Aggregate<Order, OrderEvent>` is an `Aggregate`.
export interface Aggregate<State = unknown, E extends Event = Event> {
  /** What the streams are about: `order`. */
  readonly category: string;
  /** Must accept every event that was ever stored, so a new shape of an old type is read here too (z.preprocess, a union). */
  readonly event: Parser<E>;
  readonly initial: State;
  /** The state after an event. A pure function, or two replays of one history would differ. */
  evolve(state: State, event: Recorded<E>): State;
  /** Without it, a stream is always read from its beginning. */
  readonly snapshots?: SnapshotPolicy<State>;
}

export interface SnapshotPolicy<State> {
  /** Write one each time that a stream has grown by so many events. */
  readonly every: number;
  /** Raise it with each change of `evolve` or of the state's shape: snapshots of other shapes are not read. */
  readonly shape: number;
  readonly state: Parser<State>;
}

/** A stream as it was loaded, or as an append has left it. */
export interface Stream<State> {
  readonly id: string;
  /** Of its last event; 0 for a stream that has none. */
  readonly version: number;
  readonly state: State;
}

/** The stream that events make, from its beginning or from `from` on. */
export function fold<State, E extends Event>(
  { initial, evolve }: Pick<Aggregate<State, E>, 'initial' | 'evolve'>,
  id: string,
  events: readonly Recorded<E>[],
  from: Stream<State> = { id, version: 0, state: initial },
): Stream<State> {
  return {
    id,
    version: events.at(-1)?.version ?? from.version,
    state: events.reduce(evolve, from.state),
  };
}
