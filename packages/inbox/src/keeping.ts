import { type DeadLetter, isStub, STUB_REASON } from '@oncebox/message';
import {
  errnoOf,
  errorNameOf,
  isContention,
  isDuplicateKey,
  isRefusal,
  isUnavailable,
  type Pool,
  type Transaction,
  transaction,
  withOwnOptions,
} from '@oncebox/mysql';
import type { ResultSetHeader, RowDataPacket } from 'mysql2/promise';
import { UnstorableError } from './errors.ts';
import { columnsOf, insertDeadLetter } from './letter-columns.ts';

/**
 * Below it a letter fits every server's packet: its least default is 1 MiB, and `assertSuitable`
 * refuses less.
 */
const ANY_PACKET_BYTES = 1024 * 1024;
/** Of the statement, and of the columns beside body and properties. */
const OVERHEAD_BYTES = 8 * 1024;
/**
 * A letter on which the connection breaks so often while the database is there is what breaks it.
 */
const TIMES_BROKEN = 3;
/**
 * Of the schema, the table, its columns, the rights to it: no letter is kept until that is mended,
 * and then all of them are.
 */
const OF_THE_TABLE: ReadonlySet<number | undefined> = new Set([1044, 1045, 1046, 1049, 1054, 1142, 1143, 1146]);

/**
 * Keeps a letter, or takes the place of its stub.
 *
 * @throws UnstorableError ONCEBOX_UNSTORABLE; what else it throws concerns every letter, and is
 *   over when the database is well again.
 */
export async function keepLetter(
  pool: Pool,
  consumer: string,
  letter: DeadLetter,
  isAway: () => Promise<boolean>,
): Promise<void> {
  for (let times = 1; ; times++) {
    try {
      // In a transaction for its deadline: on a connection that has died in silence a statement
      // would wait for ever.
      return await transaction(pool, (tx) => keepIn(tx, consumer, letter), { timeoutMs: 20_000 });
    } catch (error) {
      if (error instanceof UnstorableError || isContention(error) || OF_THE_TABLE.has(errnoOf(error))) throw error;
      if (!isUnavailable(error)) throw unstorable(`the table refuses it: ${causeOf(error)}`);
      // A table that is full takes it when there is room again.
      if (isRefusal(error) || (await isAway())) throw error;
      // As a server, or a proxy before it, answers what is too large for it: it looks like an
      // outage.
      if (times === TIMES_BROKEN) throw unstorable(`the connection breaks each time: ${causeOf(error)}`);
    }
  }
}

async function keepIn(tx: Transaction, consumer: string, letter: DeadLetter): Promise<void> {
  await assertFits(tx, letter);
  const { stubHash } = letter;
  if (stubHash !== undefined && (await replaceStub(tx, consumer, stubHash, letter))) return;
  try {
    await insertDeadLetter(tx, consumer, letter);
  } catch (error) {
    // The only key that a copy can meet is its own: the worker before died between this insert and
    // its ack, or this is its stub.
    if (!isDuplicateKey(error)) throw error;
    if (!isStub(letter)) await replaceStub(tx, consumer, letter.copyHash, letter);
  }
}

/** Asked first, because the server answers a packet that is too large by ending the connection. */
async function assertFits(tx: Transaction, { body, properties }: DeadLetter): Promise<void> {
  const bytes = body.length + Buffer.byteLength(properties) + OVERHEAD_BYTES;
  if (bytes <= ANY_PACKET_BYTES) return;
  const [[server]] = await withOwnOptions(tx).query<(RowDataPacket & { packet: number })[]>(
    'SELECT @@max_allowed_packet AS packet',
  );
  const packet = server?.packet ?? 0;
  if (bytes > packet) throw unstorable(`its ${bytes} bytes are over the max_allowed_packet of ${packet}`);
}

/**
 * By the unique key of dead_letters. The stub's state is of no matter: here is what it stood for.
 *
 * @returns whether there was such a stub.
 */
async function replaceStub(tx: Transaction, consumer: string, hash: Buffer, letter: DeadLetter): Promise<boolean> {
  const columns = columnsOf(letter);
  const assignments = Object.keys(columns).map((name) => `${name} = ?`);
  const [{ affectedRows }] = await withOwnOptions(tx).execute<ResultSetHeader>(
    `UPDATE dead_letters SET ${assignments.join(', ')}, state = 'dead', updated_at = UTC_TIMESTAMP(6)
      WHERE consumer = ? AND copy_hash = ? AND LEFT(reason, ${STUB_REASON.length}) = '${STUB_REASON}'`,
    [...Object.values(columns), consumer, hash],
  );
  return affectedRows > 0;
}

const unstorable = (why: string): UnstorableError => new UnstorableError('ONCEBOX_UNSTORABLE', why);

/** By its name and number: a message may quote what the table refuses. */
const causeOf = (error: unknown): string =>
  [errorNameOf(error), errnoOf(error)].filter((part) => part !== undefined).join(' ') || 'an error without a code';
