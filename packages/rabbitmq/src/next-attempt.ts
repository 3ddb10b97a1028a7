import type { Verdict } from '@oncebox/message';

/** What is not counted comes back after the longest delay up to this one. */
const UNCOUNTED_MOST_MS = 60_000;

export interface NextAttempt {
  /** That have failed, with this one if it counts. */
  readonly attempts: number;
  /** Undefined when the message is given up. */
  readonly retryInMs: number | undefined;
}

/** @param failed how many attempts have failed before. */
export function nextAttempt(
  { kind, counted }: Extract<Verdict, { readonly error: Error }>,
  failed: number,
  retryDelaysMs: readonly number[],
): NextAttempt {
  if (counted === false) {
    return { attempts: failed, retryInMs: retryDelaysMs.findLast((ms) => ms <= UNCOUNTED_MOST_MS) ?? retryDelaysMs[0] };
  }
  return { attempts: failed + 1, retryInMs: kind === 'retry' ? retryDelaysMs[failed] : undefined };
}
