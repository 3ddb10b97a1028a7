import { isDuplicateKey, type Pool, type Transaction } from '@oncebox/mysql';
import { z } from 'zod';
import type { Customer, CustomerChange, NewCustomer } from './schemas.ts';

const SELECT =
  'SELECT id, email, name, version, created_at AS createdAt, updated_at AS updatedAt FROM customers WHERE id = ?';
/** Milliseconds for a read of one row. */
const READ_TIMEOUT_MS = 5_000;

const timestamp = z.date().transform((date) => date.toISOString());
const rows = z.array(
  z.object({
    id: z.string(),
    email: z.string(),
    name: z.string(),
    version: z.int(),
    createdAt: timestamp,
    updatedAt: timestamp,
  }),
);
const written = z.object({ affectedRows: z.int() });

export class EmailTakenError extends Error {
  override readonly name = 'EmailTakenError';
}

export async function find(pool: Pool, id: string): Promise<Customer | undefined> {
  const [found] = await pool.execute({ sql: SELECT, values: [id], timeout: READ_TIMEOUT_MS });
  return rows.parse(found)[0];
}

/** @throws EmailTakenError. The unique key decides, not a look beforehand, which two requests at once would both pass. */
export async function insert(tx: Transaction, id: string, { email, name }: NewCustomer): Promise<Customer> {
  await tx.execute('INSERT INTO customers (id, email, name) VALUES (?, ?, ?)', [id, email, name]).catch(rethrowTaken);
  return reread(tx, id);
}

/**
 * Changes a customer if it is at `version`. The UPDATE itself compares, and holds the row from then on, so that the message
 * about this change gets its place in the order before the next change can begin.
 *
 * @returns what became of it, or why nothing did.
 * @throws EmailTakenError
 */
export async function update(
  tx: Transaction,
  id: string,
  version: number,
  { email, name }: CustomerChange,
): Promise<Customer | 'missing' | 'stale'> {
  const [result] = await tx
    .execute(
      `UPDATE customers
          SET email = COALESCE(?, email), name = COALESCE(?, name), version = version + 1, updated_at = UTC_TIMESTAMP(6)
        WHERE id = ? AND version = ?`,
      [email ?? null, name ?? null, id, version],
    )
    .catch(rethrowTaken);
  if (written.parse(result).affectedRows === 1) return reread(tx, id);
  const [found] = await tx.execute(SELECT, [id]);
  return rows.parse(found).length === 0 ? 'missing' : 'stale';
}

/** What the database made of it: its own clock, and the fields that this change left alone. */
async function reread(tx: Transaction, id: string): Promise<Customer> {
  const [found] = await tx.execute(SELECT, [id]);
  const [customer] = rows.parse(found);
  if (customer === undefined) throw new Error(`Customer ${id} is gone within the transaction that wrote it`);
  return customer;
}

/** Of this one key: a clash on another is a fault. MySQL puts the table's name before the key's, MariaDB does not. */
function rethrowTaken(error: unknown): never {
  if (
    isDuplicateKey(error) &&
    error instanceof Error &&
    /for key '(customers\.)?customers_email'$/.test(error.message)
  ) {
    throw new EmailTakenError('Another customer has this e-mail address');
  }
  throw error;
}
