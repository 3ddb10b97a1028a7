import { type Journal, newJournal, runClient } from '../chaos/client.ts';
import { seeded } from './seeded.ts';
import type { Api } from './trio.ts';

/** Clients that post and change customers all the while, and write down what they were told. */
export interface Load {
  readonly journal: Journal;
  /** Waits until so many more customers were accepted. @throws when a client was told a contradiction. */
  more(customers: number): Promise<void>;
  /** Lets each finish what it has begun. */
  stop(): Promise<Journal>;
}

export function startLoad(api: Pick<Api, 'url'>, { clients = 3, thinkMs = 40 } = {}): Load {
  const journal = newJournal();
  const stopping = new AbortController();
  const running = Promise.all(
    Array.from({ length: clients }, (_, n) =>
      runClient({
        url: () => api.url,
        journal,
        random: seeded(n),
        name: `load-${n}`,
        signal: stopping.signal,
        thinkMs,
      }),
    ),
  );
  running.catch(() => undefined); // whoever waits next hears of it
  return {
    journal,
    async more(customers) {
      const enough = journal.accepted.size + customers;
      while (journal.accepted.size < enough) {
        await Promise.race([running, new Promise((resolve) => setTimeout(resolve, 20))]);
      }
    },
    async stop() {
      stopping.abort();
      await running;
      return journal;
    },
  };
}
