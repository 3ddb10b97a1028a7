import { BrokerError } from './errors.ts';

/**
 * Rejects when `work` takes longer, and then calls `onLate`. A result that comes after the deadline
 * goes to `discard`.
 */
export async function inTime<T>(
  work: Promise<T>,
  milliseconds: number,
  onLate: () => void = () => undefined,
  discard: (result: T) => void = () => undefined,
): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    late.reject(new BrokerError('ONCEBOX_BROKER_LOST', `no answer from the broker within ${milliseconds} ms`));
    work.then(discard, () => undefined);
    onLate();
  }, milliseconds);
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
