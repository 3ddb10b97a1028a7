import { errnoOf, type Transaction } from '@oncebox/mysql';
import { z } from 'zod';

/**
 * A response that can be stored and sent again: all of it but what belongs to the one request, such
 * as its correlation id.
 */
export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** The exact text. */
  readonly body: string;
}

/** The table to `deleteExpired`. */
export const IDEMPOTENCY_KEYS = { table: 'idempotency_keys', key: ['idempotency_key'], age: 'created_at' } as const;

const lockRows = z.tuple([z.object({ mine: z.int() })]);
const headers = z.record(z.string(), z.string());
const rows = z.array(
  z.object({
    requestHash: z.instanceof(Buffer),
    status: z.int(),
    headers: z.string().transform((text) => headers.parse(JSON.parse(text))),
    body: z.string(),
  }),
);
type Found = z.output<typeof rows>[number];

const SELECT = `SELECT request_hash AS requestHash, status, response_headers AS headers, response_body AS body
                  FROM idempotency_keys WHERE idempotency_key = ?`;

/**
 * Names are the whole server's, case-insensitive and of at most 64 characters; this is one for each
 * schema and key.
 */
const LOCK_NAME = "SHA2(CONCAT(DATABASE(), '/', ?), 256)";

/**
 * Runs `work` if nobody has used the key, and stores its answer. Waits for nobody: a plain INSERT
 * would, for as long as another's transaction with the same key takes.
 *
 * The row says what became of the key, and its primary key alone keeps two from using it. The named
 * lock keeps the second from waiting. It is taken before the row is read, so that not both of two
 * can read before either inserts. `transaction()` releases it when the session has committed or
 * rolled back, however the work ended. FOR UPDATE NOWAIT answers for a row that another session has
 * locked.
 *
 * @returns the answer that was stored before, the one that `work` gave, or `in-progress` for a key
 *   in another's open transaction.
 */
export async function useKey(
  tx: Transaction,
  key: Buffer,
  requestHash: Buffer,
  work: (tx: Transaction) => Promise<Answer>,
): Promise<{ readonly stored: Found } | { readonly made: Answer } | 'in-progress'> {
  const lock = key.toString('hex');
  const [locked] = await tx.execute(`SELECT GET_LOCK(${LOCK_NAME}, 0) AS mine`, [lock]);
  const [{ mine }] = lockRows.parse(locked);
  if (mine === 0) return await committed(tx, key);
  const found = await lookNowait(tx, key);
  if (found === 'locked') return await committed(tx, key);
  if (found !== undefined) return { stored: found };
  const made = await work(tx);
  await tx.execute(
    `INSERT INTO idempotency_keys (idempotency_key, request_hash, status, response_headers, response_body)
     VALUES (?, ?, ?, ?, ?)`,
    [key, requestHash, made.status, JSON.stringify(made.headers), made.body],
  );
  return { made };
}

/**
 * Also finds what a row lock hides: one who reads the row to send it again, or deletes it, is no
 * reason to say in-progress.
 */
async function committed(tx: Transaction, key: Buffer) {
  const [found] = await tx.execute(SELECT, [key]);
  const [stored] = rows.parse(found);
  return stored === undefined ? 'in-progress' : { stored };
}

/**
 * 3572 is MySQL's answer to NOWAIT; MariaDB's is 1205, which transaction() would take for a wait
 * that a new attempt may cure.
 */
async function lookNowait(tx: Transaction, key: Buffer): Promise<Found | 'locked' | undefined> {
  try {
    const [found] = await tx.execute(`${SELECT} FOR UPDATE NOWAIT`, [key]);
    return rows.parse(found)[0];
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 3572 || errno === 1205) return 'locked';
    throw error;
  }
}
