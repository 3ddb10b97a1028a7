import type { CheckAvailability } from '@oncebox/contracts';
import type { Pool } from '@oncebox/mysql';
import type { ResponderOptions } from '@oncebox/rabbitmq';
import type { RowDataPacket } from 'mysql2/promise';
import type { z } from 'zod';

type Question = z.output<typeof CheckAvailability.question>;
type Answer = z.output<typeof CheckAvailability.answer>;

/** Without a lock: the answer may be wrong a moment later, and only a reservation decides. */
export const availability =
  (pool: Pool): ResponderOptions<Question, Answer>['answer'] =>
  async ({ sku, quantity }) => {
    const [[row]] = await pool.execute<(RowDataPacket & { available: number })[]>(
      // Nobody waits longer for the answer.
      { sql: 'SELECT available FROM stock WHERE sku = ?', values: [sku], timeout: 2_000 },
    );
    const inStock = row?.available ?? 0;
    return { sku, quantity, available: inStock >= quantity, inStock };
  };
