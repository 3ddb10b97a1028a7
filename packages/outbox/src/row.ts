import { decodeLineage, type OutgoingMessage } from '@oncebox/message';

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

/** @throws MessageError ONCEBOX_INVALID_HEADERS when a plain SQL writer left something else than lineage in `headers`. */
export const toOutgoing = (row: OutboxRow, schema: string): OutgoingMessage => ({
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
