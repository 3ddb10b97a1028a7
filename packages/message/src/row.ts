import type { Delivery, Lineage, Message, WhenParked } from './contract.ts';
import { MessageError } from './errors.ts';
import { checkPayload } from './payload.ts';

/** The columns of `outbox` that a writer gives; the database's defaults give the rest. */
export interface NewOutboxRow {
  readonly id: string;
  readonly aggregatetype: string;
  readonly aggregateid: string;
  readonly type: string;
  readonly version: number;
  /** The exact JSON text that will be published. */
  readonly payload: string;
  /** JSON text of the lineage, or null when there is none. */
  readonly headers: string | null;
  readonly exchange: string;
  readonly routing_key: string;
  readonly delivery: Delivery;
  readonly when_parked: WhenParked;
}

/** Bytes of the column that holds the ordering key; see migrations/messaging. */
const AGGREGATE_ID_MAX_CHARACTERS = 255;

/**
 * Encodes a message as the row that will carry it: the only place where a payload becomes text.
 *
 * @throws MessageError ONCEBOX_INVALID_PAYLOAD when its contract rejects it. Here rather than in the relay, because
 *   here the caller's transaction can still be rolled back: a message that cannot be sent must never commit.
 */
export function toOutboxRow<Payload>(message: Message<string, Payload>): NewOutboxRow {
  const { contract, id, lineage } = message;
  const name = `${contract.type} v${contract.version}`;
  const payload = checkPayload(contract, message.payload);
  const aggregateid = contract.aggregateId(payload);
  if (aggregateid.length === 0 || [...aggregateid].length > AGGREGATE_ID_MAX_CHARACTERS) {
    throw new MessageError(
      'ONCEBOX_INVALID_PAYLOAD',
      `${name}: the aggregate id must have 1 to ${AGGREGATE_ID_MAX_CHARACTERS} characters; it orders the message among others`,
    );
  }
  return {
    id,
    aggregatetype: contract.aggregateType,
    aggregateid,
    type: contract.type,
    version: contract.version,
    payload: JSON.stringify(payload),
    headers: encodeLineage(lineage),
    exchange: contract.exchange,
    routing_key: contract.routingKey,
    delivery: contract.delivery,
    when_parked: contract.whenParked,
  };
}

/** @returns null for an empty lineage, so that most rows store nothing. */
export function encodeLineage(lineage: Lineage): string | null {
  const entries = Object.entries(lineage).filter(([, value]) => value !== undefined);
  return entries.length === 0 ? null : JSON.stringify(Object.fromEntries(entries));
}

/**
 * Reads what `encodeLineage` wrote, or what a plain SQL writer put there.
 *
 * @throws MessageError ONCEBOX_INVALID_HEADERS when it is no JSON object of strings.
 */
export function decodeLineage(text: string | null): Lineage {
  if (text === null) return {};
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new MessageError('ONCEBOX_INVALID_HEADERS', 'The headers column holds no JSON');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new MessageError('ONCEBOX_INVALID_HEADERS', 'The headers column must hold a JSON object');
  }
  const lineage: { -readonly [K in keyof Lineage]: Lineage[K] } = {};
  for (const name of ['correlationId', 'causationId', 'traceparent'] as const) {
    const entry: unknown = Reflect.get(value, name);
    if (entry === undefined) continue;
    if (typeof entry !== 'string' || entry.length > 255) {
      throw new MessageError('ONCEBOX_INVALID_HEADERS', `headers.${name} must be a string of at most 255 characters`);
    }
    lineage[name] = entry;
  }
  return lineage;
}
