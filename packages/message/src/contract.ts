import { v7 as uuidv7 } from 'uuid';
import type { z } from 'zod';
import { checkDefinition } from './definition.ts';
import { EVENTS_EXCHANGE } from './names.ts';
import { checkPayload } from './payload.ts';

/** `required`: waits until a queue is bound for it. `optional`: counts as sent even when nobody listens. */
export type Delivery = 'required' | 'optional';
/** What the rest of an ordering key does when one of its messages is parked. */
export type WhenParked = 'hold' | 'continue';
/** What becomes of a payload over its limit: the writer is told, or it is stored beside the outbox and fetched by its readers. */
export type OverLimit = 'refuse' | 'claim-check';

/** Bytes of payload that a contract allows which says nothing: what quorum queues, batches and other brokers still take with ease. */
const MAX_BYTES = 256 * 1024;

export interface ContractDefinition<Type extends string, Payload> {
  /** PascalCase name of what happened: `CustomerCreated`. */
  readonly type: Type;
  /** Version of the payload's schema, from 1. */
  readonly version: number;
  /** What kind of thing the message is about; with `aggregateId` it forms the ordering key. */
  readonly aggregateType: string;
  readonly aggregateId: (payload: Payload) => string;
  readonly payload: z.ZodType<Payload>;
  readonly routingKey: string;
  readonly exchange?: string;
  readonly delivery?: Delivery;
  readonly whenParked?: WhenParked;
  /** Bytes of the payload as JSON in UTF-8. Default 262,144 (256 KiB). */
  readonly maxBytes?: number;
  /** Default `refuse`. */
  readonly overLimit?: OverLimit;
}

/** What a version has of its own. Names, keys and delivery are those of the version before, because a queue is bound once for all. */
export interface NextVersion<Earlier, Payload> {
  readonly aggregateId: (payload: Payload) => string;
  readonly payload: z.ZodType<Payload>;
  /** Makes a payload of the version before one of this version. Pure: it may run again, in years, on a message of today. */
  readonly upcast: (earlier: Earlier) => Payload;
  /** Default that of the version before. */
  readonly maxBytes?: number;
  /** Default that of the version before. */
  readonly overLimit?: OverLimit;
}

/** Ids that let a reader follow a chain of messages. */
export interface Lineage {
  /** The business transaction that this belongs to; one chain, one id. */
  readonly correlationId?: string;
  /** Id of the message that made this one happen. */
  readonly causationId?: string;
  /** W3C trace context. */
  readonly traceparent?: string;
}

/** What a message that is caused by another one carries on of it. */
export const causedBy = ({ id, lineage }: { readonly id: string; readonly lineage: Lineage }): Lineage => ({
  ...lineage,
  causationId: id,
});

/** A message that is about to be written. Only its contract makes one, so a message of one contract is not another's. */
export interface Message<Type extends string = string, Payload = unknown> {
  readonly contract: Contract<Type, Payload>;
  /** UUIDv7: made here, kept for ever; a consumer knows a duplicate by it. */
  readonly id: string;
  readonly payload: Payload;
  readonly lineage: Lineage;
}

// Methods, not function properties: their parameters compare bivariantly, so that `Message<'A', A>` is a `Message`.
export interface Contract<Type extends string = string, Payload = unknown> {
  readonly type: Type;
  readonly version: number;
  readonly aggregateType: string;
  aggregateId(payload: Payload): string;
  readonly schema: z.ZodType<Payload>;
  readonly routingKey: string;
  readonly exchange: string;
  readonly delivery: Delivery;
  readonly whenParked: WhenParked;
  readonly maxBytes: number;
  readonly overLimit: OverLimit;
  /** The version before, where messages of it are still read. */
  readonly earlier: Contract<Type> | undefined;
  /**
   * Checks a value against the version that it was sent as, and makes it one of this version.
   *
   * @param version this one or an earlier one.
   * @throws MessageError ONCEBOX_INVALID_PAYLOAD, also when an upcaster makes what the next version does not accept.
   */
  read(version: number, value: unknown): Payload;
  /** A new message, with a new id. The payload is checked when it is written (`outbox.add`), not here. */
  message(payload: Payload, lineage?: Lineage): Message<Type, Payload>;
}

/**
 * The contract of one version of one message: of the first, or of the oldest that is still read.
 *
 * @throws MessageError ONCEBOX_INVALID_CONTRACT for a name that does not fit its column or the wire, and for any setting that would be
 *   refused later, when a message is written.
 */
export function defineMessage<const Type extends string, Payload>(
  definition: ContractDefinition<Type, Payload>,
): Contract<Type, Payload> {
  return contractOf(definition);
}

/**
 * The contract of the version after `earlier`. A handler of it sees messages of both in its form; a writer chooses by the contract whose
 * `message` it calls.
 *
 * @throws MessageError ONCEBOX_INVALID_CONTRACT
 */
export function nextVersion<const Type extends string, Earlier, Payload>(
  earlier: Contract<Type, Earlier>,
  { upcast, ...changed }: NextVersion<Earlier, Payload>,
): Contract<Type, Payload> {
  const definition = { ...earlier, ...changed, version: earlier.version + 1 };
  return contractOf(definition, {
    contract: earlier,
    read: (version, value) => upcast(earlier.read(version, value)),
  });
}

/** This version and those before it that are still read, the newest first. */
export const versionsOf = (contract: Contract): Contract[] => [
  contract,
  ...(contract.earlier === undefined ? [] : versionsOf(contract.earlier)),
];

function contractOf<Type extends string, Payload>(
  definition: ContractDefinition<Type, Payload>,
  earlier?: { readonly contract: Contract<Type>; read(version: number, value: unknown): Payload },
): Contract<Type, Payload> {
  const { type, version, aggregateType, routingKey, maxBytes = MAX_BYTES } = definition;
  const { exchange = EVENTS_EXCHANGE, delivery = 'required', whenParked = 'hold', overLimit = 'refuse' } = definition;
  const settings = { exchange, delivery, whenParked, overLimit, maxBytes };
  checkDefinition({ ...definition, ...settings });
  const contract: Contract<Type, Payload> = {
    type,
    version,
    aggregateType,
    aggregateId: definition.aggregateId,
    schema: definition.payload,
    routingKey,
    ...settings,
    earlier: earlier?.contract,
    read: (sent, value) =>
      earlier === undefined || sent === version
        ? checkPayload(contract, value)
        : checkPayload(contract, earlier.read(sent, value), sent),
    message: (payload, lineage = {}) => ({ contract, id: uuidv7(), payload, lineage }),
  };
  return Object.freeze(contract);
}
