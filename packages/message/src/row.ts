import { claimIn, isClaimable } from './claim.ts';
import type { Contract, Delivery, Lineage, Message, WhenParked } from './contract.ts';
import { encodePayload, unfit } from './encode.ts';
import { MessageError } from './errors.ts';
import { AGGREGATE_ID_CHARACTERS, fitsCharacters, fitsShortString, isRowId } from './limits.ts';

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

/**
 * Encodes a message as the row that will carry it: the only place where a payload becomes text.
 *
 * A reader gets exactly what was given, or nothing is written: what JSON or the schema would change is refused, and so is what a
 * column or the wire would not take. Here rather than in the relay, because here the caller's transaction can still be rolled back.
 *
 * @throws MessageError ONCEBOX_INVALID_PAYLOAD for a payload or an aggregate id, ONCEBOX_INVALID_HEADERS for an id or a lineage,
 *   ONCEBOX_INVALID_CONTRACT for a schema that is asynchronous.
 */
export function toOutboxRow<Payload>(message: Message<string, Payload>): NewOutboxRow {
  const { contract, id, lineage } = message;
  if (!isRowId(id)) {
    const text = `${contract.type} v${contract.version}: a message id must have 1 to 36 printable ASCII characters, the last no space`;
    throw new MessageError('ONCEBOX_INVALID_HEADERS', text);
  }
  const { payload, text } = encodePayload(contract, message.payload);
  if (contract.overLimit === 'claim-check') refuseUnclaimable(contract, id, text);
  return {
    id,
    aggregatetype: contract.aggregateType,
    aggregateid: aggregateIdOf(contract, payload),
    type: contract.type,
    version: contract.version,
    payload: text,
    headers: encodeLineage(lineage),
    exchange: contract.exchange,
    routing_key: contract.routingKey,
    delivery: contract.delivery,
    when_parked: contract.whenParked,
  };
}

function aggregateIdOf<Payload>(contract: Contract<string, Payload>, payload: Payload): string {
  let aggregateId: unknown;
  try {
    aggregateId = contract.aggregateId(payload);
  } catch (cause) {
    throw unfit(contract, 'its aggregateId function threw', undefined, { cause });
  }
  if (fitsCharacters(aggregateId, AGGREGATE_ID_CHARACTERS)) return aggregateId;
  throw unfit(
    contract,
    `the aggregate id must be a string of 1 to ${AGGREGATE_ID_CHARACTERS} characters, well-formed and without U+FFFD; it orders the ` +
      'message among others',
  );
}

/** A reader takes for a claim check what reads like one, and takes a claim check under a UUID alone. */
function refuseUnclaimable<Payload>(contract: Contract<string, Payload>, id: string, text: string): void {
  if (claimIn(contract, { version: contract.version, payload: text }) !== undefined)
    throw unfit(contract, 'a payload must not read like a claim check');
  if (Buffer.byteLength(text) > contract.maxBytes && !isClaimable(id))
    throw unfit(contract, 'a payload over its limit can be claimed by a UUID alone, and the message id is none');
}

const CARRIED = ['correlationId', 'causationId', 'traceparent'] as const;
type Carried = { -readonly [K in keyof Lineage]: Lineage[K] };

/**
 * A trace context that cannot be carried on is left out, as on the wire. Three short strings fit the headers column (65,535 bytes) in any
 * escaping.
 *
 * @returns null for an empty lineage, so that most rows store nothing.
 * @throws MessageError ONCEBOX_INVALID_HEADERS for an id that would not arrive as it is, and for what is no part of a lineage.
 */
export function encodeLineage(lineage: Lineage): string | null {
  const carried: Carried = {};
  for (const name of CARRIED) {
    const entry = lineage[name];
    if (entry === undefined) continue;
    if (fitsShortString(entry)) carried[name] = entry;
    else if (name !== 'traceparent') throw unfitHeader(`lineage.${name}`);
  }
  const isKnown = (name: string): boolean => CARRIED.some((known) => known === name);
  const others = Object.entries(lineage).filter(([name, value]) => !isKnown(name) && value !== undefined);
  if (others.length > 0) throw new MessageError('ONCEBOX_INVALID_HEADERS', `lineage holds ${CARRIED.join(', ')} alone`);
  return Object.keys(carried).length === 0 ? null : JSON.stringify(carried);
}

/**
 * Reads what `encodeLineage` wrote, or what a plain SQL writer put there.
 *
 * @throws MessageError ONCEBOX_INVALID_HEADERS when it is no JSON object of strings that the wire carries.
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
  const lineage: Carried = {};
  for (const name of CARRIED) {
    const entry: unknown = Reflect.get(value, name);
    if (entry === undefined || entry === '') continue; // an empty text is none on the wire
    if (!fitsShortString(entry)) throw unfitHeader(`headers.${name}`);
    lineage[name] = entry;
  }
  return lineage;
}

const unfitHeader = (name: string): MessageError =>
  new MessageError(
    'ONCEBOX_INVALID_HEADERS',
    `${name} must be a string of 1 to 255 bytes in UTF-8, well-formed and without U+FFFD`,
  );
