import type { Received } from '@oncebox/message';
import type { Consumer } from './consumer.ts';
import type { Handling, Work } from './handling.ts';
import { type Failure, unknownMessage, unreadable } from './verdicts.ts';

type Reading = { readonly kind: 'handled' } | Failure;

interface ReadRun {
  /** Where its first message stands in the batch. */
  readonly at: number;
  readonly messages: Received[];
  readonly work: Work;
}

/**
 * Reads a batch: as runs of work, in its order, and as its verdicts, which are `handled` but for messages that cannot be handled at all.
 *
 * @param joins whether neighbours of one handling are one run.
 */
export function readBatch(
  consumer: Consumer,
  batch: readonly Received[],
  { joins }: { joins: boolean },
): { runs: ReadRun[]; verdicts: Reading[] } {
  const runs: ReadRun[] = [];
  let last: { handling: Handling; add: (message: Received) => void } | undefined;
  const verdicts = batch.map((message, at): Reading => {
    const handling = consumer.handlingOf(message.type, message.version);
    if (handling === undefined) return unknownMessage(consumer, message);
    try {
      if (joins && last?.handling === handling) last.add(message);
      else {
        const { add, work } = handling.run();
        add(message);
        const messages = [message];
        runs.push({ at, messages, work });
        last = {
          handling,
          add(next) {
            add(next);
            messages.push(next);
          },
        };
      }
      return { kind: 'handled' };
    } catch (error) {
      return unreadable(error);
    }
  });
  return { runs, verdicts };
}
