import { delayUncounted, type Inbox, type Verdict } from '@oncebox/message';
import type { ConsumeMessage } from 'amqplib';
import { failedAttempts, isTime, NOTE } from './notes.ts';

export type FailedVerdict = Extract<Verdict, { readonly error: Error }>;

export interface NextAttempt {
  /** That have failed, with this one if it counts. */
  readonly attempts: number;
  /** Undefined when the message is given up. */
  readonly retryInMs: number | undefined;
}

/** How many attempts have failed with this verdict, and when the next one is due. */
export function nextAttempt(
  message: ConsumeMessage,
  { kind, uncounted }: FailedVerdict,
  { name, retryDelaysMs }: Pick<Inbox, 'name' | 'retryDelaysMs'>,
): NextAttempt {
  const failed = failedAttempts(message, name, retryDelaysMs.length);
  if (uncounted !== undefined) {
    return { attempts: failed, retryInMs: delayUncounted(uncounted, retryDelaysMs, waitedMs(message)) };
  }
  return { attempts: failed + 1, retryInMs: kind === 'retry' ? retryDelaysMs[failed] : undefined };
}

function waitedMs({ properties }: ConsumeMessage): number {
  const first: unknown = properties.headers?.[NOTE.firstFailure];
  return isTime(first) ? Date.now() - Date.parse(first) : 0;
}
