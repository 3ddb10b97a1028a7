import { delayElsewhere, type Inbox, queuedDelays, type Verdict } from '@oncebox/message';
import type { ConsumeMessage } from 'amqplib';
import { failedAttempts, isTime, NOTE } from './notes.ts';

/** What is not counted comes back after the longest delay up to this one. */
const UNCOUNTED_MOST_MS = 60_000;

export type FailedVerdict = Extract<Verdict, { readonly error: Error }>;

export interface NextAttempt {
  /** That have failed, with this one if it counts. */
  readonly attempts: number;
  /** Undefined when the message is given up. */
  readonly retryInMs: number | undefined;
}

/**
 * How many attempts have failed with this verdict, and when the next one is due. One that another
 * worker is to have has not failed here, and waits until that one has it; one for which the server
 * could not go on is not counted.
 */
export function nextAttempt(
  message: ConsumeMessage,
  { kind, elsewhere = false, counted }: FailedVerdict,
  { name, retryDelaysMs }: Pick<Inbox, 'name' | 'retryDelaysMs'>,
): NextAttempt {
  const failed = failedAttempts(message, name, retryDelaysMs.length);
  const queued = queuedDelays(retryDelaysMs);
  if (elsewhere) return { attempts: failed, retryInMs: delayElsewhere(queued, waitedMs(message)) };
  if (counted === false) {
    return { attempts: failed, retryInMs: queued.findLast((ms) => ms <= UNCOUNTED_MOST_MS) ?? queued[0] };
  }
  return { attempts: failed + 1, retryInMs: kind === 'retry' ? retryDelaysMs[failed] : undefined };
}

function waitedMs({ properties }: ConsumeMessage): number {
  const first: unknown = properties.headers?.[NOTE.firstFailure];
  return isTime(first) ? Date.now() - Date.parse(first) : 0;
}
