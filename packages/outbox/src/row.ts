import { isAscii } from 'node:buffer';
import { classOf, decodeLineage, MessageError, type OutgoingMessage } from '@oncebox/message';
import { asBytes } from '@oncebox/mysql';

/** How many partitions the ordering keys are spread over; the generated column `partition_id` has the same number. */
export const PARTITIONS = 16;

/** A row as a pass reads it. */
export interface OutboxRow {
  /** Text: a BIGINT may exceed what a number holds exactly. */
  readonly seq: string;
  readonly id: string;
  readonly partition_id: number;
  readonly aggregatetype: string;
  readonly aggregateid: string;
  readonly type: string;
  readonly version: number;
  readonly payload: string;
  readonly headers: string | null;
  readonly exchange: string;
  readonly routing_key: string | null;
  readonly delivery: 'required' | 'optional';
  readonly when_parked: 'hold' | 'continue';
  readonly held: number;
  readonly attempts: number;
  readonly created_at: Date;
  /** 1 while any row of this schema waits behind a failure. */
  readonly anything_waits: number;
}

/** The ordering key, as one string that no other pair can make: the length tells where the type ends. */
export const keyOf = ({ aggregatetype, aggregateid }: { aggregatetype: string; aggregateid: string }): string =>
  `${aggregatetype.length}:${aggregatetype}${aggregateid}`;

/**
 * Whether a message can have this id: the column is ASCII, and the servers refuse to compare it
 * with anything else.
 */
export const isPossibleId = (id: string): boolean => isAscii(asBytes(id));

/**
 * A time of which an age is made. It is NULL for what lies before the range of DATETIME, such as
 * '0000-00-00'. The difference to now is then NULL too, and MAX passes over it; MIN(time) would
 * answer with one such row alone.
 */
export const knownTime = (column: string): string => `IF(${column} < '1000-01-01', NULL, ${column})`;

/** What `last_error` holds, in characters. */
const REASON_CHARACTERS = 500;

/** A reason as `last_error` can store it. A code unit more or less would cut a character in two. */
export const fitReason = (reason: string): string =>
  Array.from(reason.slice(0, 2 * REASON_CHARACTERS).toWellFormed())
    .slice(0, REASON_CHARACTERS)
    .join('');

/**
 * Why a row cannot be sent. The message of a foreign error may quote the payload, so the reason has
 * its class alone.
 */
export function reasonOf(error: unknown): string {
  if (error instanceof MessageError || error instanceof RowError) return `${error.code}: ${error.message}`;
  return `ONCEBOX_UNSENDABLE_ROW: the publisher failed with ${error instanceof Error ? classOf(error) : typeof error}`;
}

class RowError extends Error {
  override readonly name = 'RowError';
  readonly code = 'ONCEBOX_UNSENDABLE_ROW';
}

/**
 * Checks only what no transport can write. Readers decide whether they accept the rest, an empty
 * payload for one.
 *
 * @throws MessageError ONCEBOX_INVALID_HEADERS when a plain SQL writer left something else than
 *   lineage in `headers`.
 * @throws RowError ONCEBOX_UNSENDABLE_ROW when `created_at` is no date ('0000-00-00', which a
 *   permissive `sql_mode` accepts), or lies before 1970, where no transport's timestamp reaches.
 */
export function toOutgoing(row: OutboxRow, schema: string): OutgoingMessage {
  if (!(row.created_at.getTime() >= 0)) throw new RowError('created_at holds no time from 1970 on');
  return toMessage(row, schema);
}

const toMessage = (row: OutboxRow, schema: string): OutgoingMessage => ({
  id: row.id,
  type: row.type,
  version: row.version,
  aggregateId: row.aggregateid,
  partition: row.partition_id,
  payload: row.payload,
  lineage: decodeLineage(row.headers),
  exchange: row.exchange,
  routingKey: row.routing_key ?? `${row.aggregatetype}.${row.type}`,
  mandatory: row.delivery === 'required',
  attempt: row.attempts + 1,
  source: schema,
  occurredAt: row.created_at,
});
