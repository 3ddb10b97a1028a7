import type { ConsumeMessage } from 'amqplib';
import { BrokerError } from './errors.ts';

/** Replies that nobody waited for: `late`, after the deadline; `second`, to what was answered; `unmatched`, to nothing that is known. */
export interface ReplyCounts {
  readonly late: number;
  readonly second: number;
  readonly unmatched: number;
}

/** The requests that wait for a reply. Each leaves by a reply, its deadline, or `fail`, whichever comes first. */
export interface PendingRequests {
  readonly size: number;
  readonly counts: ReplyCounts;
  /** Rejects with ONCEBOX_REQUEST_TIMED_OUT. @throws BrokerError ONCEBOX_TOO_MANY_REQUESTS, at once: nothing may be sent then. */
  add(id: string, timeoutMs: number): Promise<ConsumeMessage>;
  /** @returns what is wrong with a reply that nobody waited for; it is counted. */
  settle(id: string, reply: ConsumeMessage): keyof ReplyCounts | undefined;
  fail(id: string, error: Error): void;
  failAll(error: Error): void;
}

interface Waiting {
  readonly resolve: (reply: ConsumeMessage) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

/** @param most how many may wait; as many that have ended are remembered, to tell late and second replies from foreign ones. */
export function pendingRequests(most: number): PendingRequests {
  const waiting = new Map<string, Waiting>();
  const ended = new Map<string, 'late' | 'second'>(); // what a further reply would be; the oldest first
  const counts = { late: 0, second: 0, unmatched: 0 };

  const end = (id: string, further: 'late' | 'second'): Waiting | undefined => {
    const found = waiting.get(id);
    if (found === undefined) return undefined;
    waiting.delete(id);
    clearTimeout(found.timer);
    ended.set(id, further);
    for (const oldest of ended.keys()) {
      if (ended.size <= most) break;
      ended.delete(oldest);
    }
    return found;
  };
  const fail = (id: string, error: Error): void => end(id, 'late')?.reject(error);

  return {
    get size() {
      return waiting.size;
    },
    counts,
    add(id, timeoutMs) {
      if (waiting.size >= most) {
        throw new BrokerError('ONCEBOX_TOO_MANY_REQUESTS', `${most} requests wait for their answers already`);
      }
      return new Promise((resolve, reject) => {
        const late = () => fail(id, new BrokerError('ONCEBOX_REQUEST_TIMED_OUT', `No answer within ${timeoutMs} ms`));
        waiting.set(id, { resolve, reject, timer: setTimeout(late, timeoutMs) });
      });
    },
    settle(id, reply) {
      const found = end(id, 'second');
      if (found === undefined) {
        const surplus = ended.get(id) ?? 'unmatched';
        counts[surplus] += 1;
        return surplus;
      }
      found.resolve(reply);
      return undefined;
    },
    fail,
    failAll(error) {
      for (const id of [...waiting.keys()]) fail(id, error);
    },
  };
}
