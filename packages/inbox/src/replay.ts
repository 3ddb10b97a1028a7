import { STUB_REASON } from '@oncebox/message';
import { asBytes, type Pool, transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { iso } from './inspect.ts';

// The operator's side of dead_letters: the worker puts rows in, and sends again those that are asked for here.

export type DeadLetterState = 'dead' | 'replay' | 'replayed' | 'discarded';

/** A dead letter without what was sent. Times are ISO 8601 in UTC with microseconds, so that they compare as text. */
export interface DeadLetter {
  /** Text: a BIGINT may exceed what a number holds exactly. */
  readonly id: string;
  readonly consumer: string;
  readonly messageId: string | null;
  readonly type: string | null;
  readonly version: number | null;
  readonly routingKey: string;
  readonly reason: string;
  readonly errorClass: string | null;
  readonly attempts: number;
  readonly state: DeadLetterState;
  readonly occurredAt: string | null;
  readonly firstFailedAt: string | null;
  readonly lastFailedAt: string | null;
  readonly createdAt: string;
  readonly updatedAt: string;
  /**
   * Why a replay of it is refused, if it is. `forgotten`: the inbox may no longer know that it was handled. `set aside`: the message is
   * in a queue, and this stands for it.
   */
  readonly obstacle: 'forgotten' | 'no id' | 'set aside' | null;
}

// An inbox row is never older than its message, so a message from after the horizon is remembered for certain. Where the age of
// the message is not known, the first that is known of it counts. Somebody may have deleted the row of `retention`: until a
// cleaner has put it back, nothing is remembered for certain.
const OBSTACLE = `CASE
    WHEN LEFT(d.reason, ${STUB_REASON.length}) = '${STUB_REASON}' THEN 'set aside'
    WHEN d.message_id IS NULL THEN 'no id'
    WHEN COALESCE(d.occurred_at, d.first_failed_at, d.created_at) <
         (SELECT IF(COUNT(*) = 1, MAX(forgotten_before), UTC_TIMESTAMP(6)) FROM retention WHERE name = 'processed_messages')
      THEN 'forgotten'
  END`;

const LETTER = `CAST(d.id AS CHAR) AS id, d.consumer, d.message_id AS messageIdBytes, d.type, d.version, d.routing_key AS routingKey, d.reason,
  d.error_class AS errorClass, d.attempts, d.state, ${iso('d.occurred_at')} AS occurredAt, ${iso('d.first_failed_at')} AS firstFailedAt,
  ${iso('d.last_failed_at')} AS lastFailedAt, ${iso('d.created_at')} AS createdAt, ${iso('d.updated_at')} AS updatedAt,
  ${OBSTACLE} AS obstacle`;

type LetterRow = Omit<DeadLetter, 'messageId'> & { readonly messageIdBytes: Buffer | null } & RowDataPacket;

const toLetter = ({ messageIdBytes, ...row }: LetterRow): DeadLetter => ({
  ...row,
  messageId: messageIdBytes?.toString('utf8') ?? null,
});

/** All of them must hold; those that are absent hold for every dead letter. */
export interface DeadLetterFilter {
  readonly states: readonly DeadLetterState[];
  readonly ids?: readonly string[] | undefined;
  readonly consumer?: string | undefined;
  readonly type?: string | undefined;
  /** Text that the reason contains, upper and lower case told apart. */
  readonly reason?: string | undefined;
  /** Seconds since it was given up, by the database's clock. */
  readonly olderThan?: number | undefined;
  readonly newerThan?: number | undefined;
}

/** Ids of dead letters for a list; 0, which none has, in the place of what is no number. */
const numbers = (ids: readonly string[]): bigint[] => ids.map((id) => (/^\d+$/.test(id) ? BigInt(id) : 0n));

/** The oldest first, up to `limit`, after the dead letter `after` ('0' for the first page). */
export async function listDeadLetters(
  pool: Pool,
  { states, ids, consumer, type, reason, olderThan, newerThan }: DeadLetterFilter,
  { after, limit }: { after: string; limit: number },
): Promise<DeadLetter[]> {
  const conditions: [sql: string, value: unknown][] = [
    ['d.id > ?', BigInt(after)],
    ['d.state IN (?)', states],
  ];
  if (ids !== undefined) conditions.push(['d.id IN (?)', numbers(ids)]);
  // As binary, because the collations of these columns ignore trailing spaces.
  if (consumer !== undefined) conditions.push(['CAST(d.consumer AS BINARY) = ?', asBytes(consumer)]);
  if (type !== undefined) conditions.push(['CAST(d.type AS BINARY) = ?', asBytes(type)]);
  if (reason !== undefined) conditions.push(['LOCATE(?, d.reason) > 0', asBytes(reason)]);
  if (olderThan !== undefined)
    conditions.push(['d.created_at < TIMESTAMPADD(SECOND, -?, UTC_TIMESTAMP(6))', olderThan]);
  if (newerThan !== undefined)
    conditions.push(['d.created_at > TIMESTAMPADD(SECOND, -?, UTC_TIMESTAMP(6))', newerThan]);
  // By primary key, so that a run through all of them, page by page, reads the table once.
  const [rows] = await pool.query<LetterRow[]>(
    `SELECT ${LETTER} FROM dead_letters AS d FORCE INDEX (PRIMARY)
      WHERE ${conditions.map(([sql]) => sql).join(' AND ')} ORDER BY d.id LIMIT ${limit}`,
    conditions.map(([, value]) => value),
  );
  return rows.map(toLetter);
}

/** Of these messages, the oldest first. @param messageIds in hundreds */
export async function deadLettersOf(pool: Pool, messageIds: readonly string[]): Promise<DeadLetter[]> {
  if (messageIds.length === 0) return [];
  const [rows] = await pool.query<LetterRow[]>(
    `SELECT ${LETTER} FROM dead_letters AS d FORCE INDEX (dead_letters_message) WHERE d.message_id IN (?) ORDER BY d.id`,
    [messageIds.map(asBytes)],
  );
  return rows.map(toLetter);
}

/** What was sent, and would be sent again: personal data, as a rule. */
export interface Sent {
  /** AMQP properties and headers as JSON text. */
  readonly properties: string;
  readonly body: Buffer;
}

export async function readSent(pool: Pool, id: string): Promise<Sent | undefined> {
  const [rows] = await pool.execute<(Sent & RowDataPacket)[]>(
    'SELECT properties, body FROM dead_letters WHERE id = ?',
    [id],
  );
  return rows[0];
}

export type ReplayOutcome =
  /** Its worker is to send it. */
  | 'replay'
  /** It has been asked for before, and not been sent yet. */
  | 'waiting'
  /** No such dead letter. */
  | 'unknown'
  | NonNullable<DeadLetter['obstacle']>;

/**
 * Asks the consumer's worker to send these again, under the same message ids, so that what was handled meanwhile is a duplicate.
 *
 * @param ids in hundreds: they change in one transaction.
 * @param force also those that have the obstacle `forgotten`; they may take effect a second time.
 */
export async function requestReplay(
  pool: Pool,
  ids: readonly string[],
  { force = false }: { force?: boolean } = {},
): Promise<ReadonlyMap<string, ReplayOutcome>> {
  return await mark<ReplayOutcome>(pool, ids, 'replay', ({ state, obstacle }) => {
    if (state === 'replay') return 'waiting';
    return obstacle === null || (obstacle === 'forgotten' && force) ? 'replay' : obstacle;
  });
}

/** `replayed` has been sent again: if that failed, it is another dead letter. */
export type DiscardOutcome = 'discarded' | 'discarded before' | 'replayed' | 'unknown';

/** Gives these up for good; the rows stay for the retention, so that they are never taken for handled. @param ids as in `requestReplay` */
export async function discardDeadLetters(
  pool: Pool,
  ids: readonly string[],
): Promise<ReadonlyMap<string, DiscardOutcome>> {
  return await mark<DiscardOutcome>(pool, ids, 'discarded', ({ state }) => {
    if (state === 'discarded') return 'discarded before';
    return state === 'replayed' ? 'replayed' : 'discarded';
  });
}

/** Gives `to` to those for which `decide` answers it. The rows are locked before they are looked at: a worker may be sending one. */
async function mark<Outcome extends string>(
  pool: Pool,
  ids: readonly string[],
  to: DeadLetterState & Outcome,
  decide: (letter: Pick<DeadLetter, 'state' | 'obstacle'>) => Outcome,
): Promise<ReadonlyMap<string, Outcome | 'unknown'>> {
  const outcomes = new Map<string, Outcome | 'unknown'>(ids.map((id) => [id, 'unknown']));
  if (ids.length === 0) return outcomes;
  await transaction(pool, async (tx) => {
    const [rows] = await tx.query<(RowDataPacket & Pick<DeadLetter, 'id' | 'state' | 'obstacle'>)[]>(
      `SELECT CAST(d.id AS CHAR) AS id, d.state, ${OBSTACLE} AS obstacle FROM dead_letters AS d FORCE INDEX (PRIMARY)
        WHERE d.id IN (?) ORDER BY d.id FOR UPDATE`,
      [numbers(ids)],
    );
    for (const row of rows) outcomes.set(row.id, decide(row));
    const marked = rows.map(({ id }) => id).filter((id) => outcomes.get(id) === to);
    if (marked.length === 0) return;
    await tx.query(
      'UPDATE dead_letters FORCE INDEX (PRIMARY) SET state = ?, updated_at = UTC_TIMESTAMP(6) WHERE id IN (?)',
      [to, marked],
    );
  });
  return outcomes;
}
