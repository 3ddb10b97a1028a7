import { once } from 'node:events';
import { isDuplicateKey, type Pool } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import type { PaymentGateway } from './gateway.ts';

type Operation = RowDataPacket & { outcome: 'charged' | 'declined' | 'refunded'; amount: number };

/**
 * A payment provider for development and tests. It answers by token: `tok_ok` is charged; of `tok_timeout` the first call is charged
 * and never answered; all others, `tok_declined` for one, are declined.
 *
 * @param pool of its own, each statement its own transaction: what it has booked outlives a rollback or a kill of its caller.
 */
export function simulatedGateway(pool: Pool): PaymentGateway {
  const find = async (key: string): Promise<Operation | undefined> => {
    const [[found]] = await pool.execute<Operation[]>(
      'SELECT outcome, amount FROM gateway_operations WHERE idempotency_key = ?',
      [key],
    );
    return found;
  };
  /** @returns false for a key that was used before: the insert decides which of two equal calls is the first. */
  const book = async (key: string, kind: 'charge' | 'refund', amount: number, outcome: string): Promise<boolean> => {
    try {
      await pool.execute(
        'INSERT INTO gateway_operations (idempotency_key, kind, amount, outcome) VALUES (?, ?, ?, ?)',
        [key, kind, amount, outcome],
      );
      return true;
    } catch (error) {
      if (isDuplicateKey(error)) return false;
      throw error;
    }
  };

  return {
    async charge({ key, amount, token }, signal) {
      const outcome = token === 'tok_ok' || token === 'tok_timeout' ? 'charged' : 'declined';
      if (!(await book(key, 'charge', amount, outcome))) {
        return (await find(key))?.outcome === 'charged' ? 'charged' : 'declined';
      }
      if (token === 'tok_timeout') await silence(signal);
      return outcome;
    },

    async refund({ key, chargeKey }) {
      const charge = await find(chargeKey);
      if (charge?.outcome !== 'charged') return 0;
      await book(key, 'refund', charge.amount, 'refunded');
      return charge.amount;
    },
  };
}

/** Until the caller gives up. */
async function silence(signal: AbortSignal): Promise<never> {
  if (!signal.aborted) await once(signal, 'abort');
  throw signal.reason;
}
