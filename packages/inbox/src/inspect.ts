import { STUB_REASON } from '@oncebox/message';
import { asBytes, type Pool, type Transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';

// What people and scripts ask of an inbox. Plain reads that lock nothing. Times are ISO 8601 in UTC with microseconds, so that they
// compare as text.

/** A DATETIME(6) in UTC as text. */
export const iso = (column: string): string => `DATE_FORMAT(${column}, '%Y-%m-%dT%H:%i:%s.%fZ')`;

export interface Registration {
  readonly consumer: string;
  readonly type: string;
  /** It is expected to handle the messages that were written from then on. */
  readonly since: string;
  /** Whether it takes history of this type. */
  readonly replays: boolean;
  /** Whether it handles each key in order, and so has several queues. */
  readonly ordered: boolean;
}

/** The consumers that workers have registered in this schema, a row for each type that they handle. */
export async function readRegistrations(pool: Pool): Promise<Registration[]> {
  const [rows] = await pool.query<(RowDataPacket & { consumer: string; type: string; since: string })[]>(
    `SELECT consumer, type, ${iso('since')} AS since, replays, ordered FROM consumers ORDER BY consumer, type`,
  );
  return rows.map(({ consumer, type, since, replays, ordered }) => {
    return { consumer, type, since, replays: replays === 1, ordered: ordered === 1 };
  });
}

/**
 * When the consumer handled each of these messages; those that are not in the answer it has not handled, or has forgotten.
 *
 * @param ids in hundreds: each is one probe of the primary key.
 */
export async function readHandled(
  pool: Pool,
  consumer: string,
  ids: readonly string[],
): Promise<ReadonlyMap<string, string>> {
  if (ids.length === 0) return new Map();
  const [rows] = await pool.query<(RowDataPacket & { id: Buffer; at: string })[]>(
    `SELECT message_id AS id, ${iso('processed_at')} AS at FROM processed_messages FORCE INDEX (PRIMARY)
      WHERE consumer = ? AND message_id IN (?)`,
    // As bytes, which is what the column holds: nothing converts, and nothing folds.
    [asBytes(consumer), ids.map(asBytes)],
  );
  return new Map(rows.map(({ id, at }) => [id.toString('utf8'), at]));
}

/**
 * Ids recorded before this may be gone, and dead letters that were replayed or discarded before; undefined while none is. To be
 * asked after `readHandled` and `deadLettersOf`: what retention took in between is then older than the answer. A message is never
 * younger than its id here, or its dead letter. Without its row in `retention` nobody knows, and that is now.
 */
export async function inboxForgottenBefore(pool: Pool): Promise<string | undefined> {
  const [rows] = await pool.query<(RowDataPacket & { before: string | null })[]>(
    `SELECT ${iso("IF(SUM(name = 'processed_messages') = 1, MAX(forgotten_before), UTC_TIMESTAMP(6))")} AS \`before\`
       FROM retention WHERE name IN ('processed_messages', 'dead_letters')`,
  );
  return rows[0]?.before ?? undefined;
}

/** What a consumer has in hand. A count ends at `countUpTo`. */
export interface ConsumerActivity {
  readonly consumer: string;
  readonly dead: number;
  /** Of the dead ones, stubs: the table did not take the letter, and the message is in the queue for what is set aside. */
  readonly setAside: number;
  /** Dead letters that the worker is to send again. */
  readonly replay: number;
  /** Messages handled within the last hour, by the database's clock. */
  readonly handledLastHour: number;
}

const letters = (state: string, and = ''): string =>
  `(SELECT COUNT(*) FROM (SELECT 1 FROM dead_letters FORCE INDEX (dead_letters_state)
     WHERE state = '${state}' AND consumer = ? ${and} LIMIT ?) AS counted)`;
const STUBS = `AND LEFT(reason, ${STUB_REASON.length}) = '${STUB_REASON}'`;

const ACTIVITY = `SELECT ${letters('dead')} AS dead, ${letters('dead', STUBS)} AS setAside, ${letters('replay')} AS replay,
  (SELECT COUNT(*) FROM (SELECT 1 FROM processed_messages FORCE INDEX (processed_messages_age)
     WHERE processed_at > TIMESTAMPADD(HOUR, -1, UTC_TIMESTAMP(6)) AND consumer = ? LIMIT ?) AS counted) AS handledLastHour`;

/** The registered consumers, and those that have dead letters. */
export async function readActivity(pool: Pool, countUpTo: number): Promise<ConsumerActivity[]> {
  const [names] = await pool.query<(RowDataPacket & { consumer: string })[]>(
    `SELECT consumer FROM consumers UNION SELECT consumer FROM dead_letters WHERE state IN ('dead', 'replay') ORDER BY consumer`,
  );
  const activities: ConsumerActivity[] = [];
  for (const { consumer } of names) {
    const counted = [asBytes(consumer), countUpTo];
    const [rows] = await pool.query<(ConsumerActivity & RowDataPacket)[]>(ACTIVITY, [
      ...counted,
      ...counted,
      ...counted,
      ...counted,
    ]);
    activities.push(...rows.map((row) => ({ ...row, consumer })));
  }
  return activities;
}

/** Dead letters that wait for a person (`dead`) or for the worker (`replay`), by consumer; a registered one without any has zeros. */
export interface DeadLetterCounts {
  readonly consumers: readonly { readonly consumer: string; readonly dead: number; readonly replay: number }[];
  /** There are more than were counted. */
  readonly capped: boolean;
}

// By dead_letters_state, which has all that is read. One limit for all consumers, as the names are not known beforehand.
const DEAD_LETTERS = `SELECT consumer, SUM(state = 'dead') AS dead, SUM(state = 'replay') AS replay FROM (
    (SELECT consumer, state FROM dead_letters FORCE INDEX (dead_letters_state) WHERE state = 'dead' LIMIT ?) UNION ALL
    (SELECT consumer, state FROM dead_letters FORCE INDEX (dead_letters_state) WHERE state = 'replay' LIMIT ?) UNION ALL
    (SELECT DISTINCT consumer, '' FROM consumers)) AS found
  GROUP BY consumer ORDER BY consumer`;

/** For a gauge that is read every few seconds: its cost ends at `countUpTo` rows of each state. */
export async function countDeadLetters(db: Pick<Transaction, 'query'>, countUpTo: number): Promise<DeadLetterCounts> {
  const [rows] = await db.query<(RowDataPacket & { consumer: string; dead: string; replay: string })[]>(DEAD_LETTERS, [
    countUpTo,
    countUpTo,
  ]);
  const consumers = rows.map(({ consumer, dead, replay }) => ({
    consumer,
    dead: Number(dead),
    replay: Number(replay),
  }));
  const isFull = (state: 'dead' | 'replay'): boolean =>
    consumers.reduce((sum, each) => sum + each[state], 0) >= countUpTo;
  return { consumers, capped: isFull('dead') || isFull('replay') };
}
