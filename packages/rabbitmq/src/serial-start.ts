/**
 * The start of a process that may follow a crash. When a message ends its process, the broker
 * counts the crash against every message that any consumer of the process had in hand. So a process
 * that starts handles redelivered messages one at a time: the next crash counts against the guilty
 * message alone, and no other message reaches its delivery limit.
 *
 * The consumers of a process join when they are started. They take turns with their redelivered
 * messages, and each consumer leaves when it has no more. No consumer subscribes before all have
 * left, because the broker sends many messages ahead to a subscriber.
 */
export interface SerialStart {
  /** Call `join` before a starting consumer awaits anything, or the others may not wait for it. */
  join(): Participant;
  /** Resolves when all participants have left and no turn is under way. */
  over(): Promise<void>;
}

export interface Participant {
  /**
   * Calls `handleOne` until it resolves with false, then leaves. Only one `handleOne` runs at a
   * time in the process, and every other participant has its turn between two calls. After the
   * participant has left, `handleOne` is not called.
   *
   * @throws what `handleOne` throws, after leaving.
   */
  takeTurns(handleOne: () => Promise<boolean>): Promise<void>;
  /**
   * A consumer that cannot begin leaves, so that the others need not wait for it. They still wait
   * for the end of its turn.
   */
  leave(): void;
}

export function createSerialStart(): SerialStart {
  let present = 0;
  let turn: Promise<unknown> = Promise.resolve(); // never rejects
  let ended = Promise.resolve();
  let end = (): void => undefined;

  const inTurn = (work: () => Promise<boolean>): Promise<boolean> => {
    const result = turn.then(work);
    turn = result.catch(() => undefined);
    return result;
  };

  return {
    join() {
      if (present === 0) ({ promise: ended, resolve: end } = Promise.withResolvers<void>());
      present += 1;
      let isPresent = true;
      const leave = (): void => {
        if (!isPresent) return;
        isPresent = false;
        present -= 1;
        // When a channel is lost, its consumer leaves while its handler still runs.
        if (present === 0) void turn.then(end);
      };
      const handleInTurn = (handleOne: () => Promise<boolean>) => inTurn(async () => isPresent && (await handleOne()));
      return {
        async takeTurns(handleOne) {
          try {
            while (await handleInTurn(handleOne));
          } finally {
            leave();
          }
        },
        leave,
      };
    },
    over: () => ended,
  };
}
