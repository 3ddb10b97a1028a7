import { v7 as uuidv7 } from 'uuid';
import type { z } from 'zod';
import { MessageError } from './errors.ts';
import { EVENTS_EXCHANGE } from './names.ts';

/** `required`: waits until a queue is bound for it. `optional`: counts as sent even when nobody listens. */
export type Delivery = 'required' | 'optional';
/** What the rest of an ordering key does when one of its messages is parked. */
export type WhenParked = 'hold' | 'continue';

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
  /** A new message, with a new id. The payload is checked when it is written (`outbox.add`), not here. */
  message(payload: Payload, lineage?: Lineage): Message<Type, Payload>;
}

const NAME = /^[A-Za-z][A-Za-z0-9._-]*$/;

/**
 * The contract of one version of one message.
 *
 * @throws MessageError ONCEBOX_INVALID_CONTRACT when a name does not fit its column or could not be routed.
 */
export function defineMessage<const Type extends string, Payload>(
  definition: ContractDefinition<Type, Payload>,
): Contract<Type, Payload> {
  const { type, version, aggregateType, routingKey } = definition;
  const refuse = (why: string): never => {
    throw new MessageError('ONCEBOX_INVALID_CONTRACT', `Message contract ${JSON.stringify(type)}: ${why}`);
  };
  if (!NAME.test(type) || type.length > 128)
    refuse('type must be a name of at most 128 letters, digits, ".", "_", "-"');
  if (!NAME.test(aggregateType) || aggregateType.length > 128) refuse('aggregateType must be such a name too');
  if (!Number.isInteger(version) || version < 1 || version > 65_535)
    refuse('version must be an integer from 1 to 65535');
  if (routingKey.length === 0 || Buffer.byteLength(routingKey) > 255) refuse('routingKey must have 1 to 255 bytes');
  const contract: Contract<Type, Payload> = {
    type,
    version,
    aggregateType,
    aggregateId: definition.aggregateId,
    schema: definition.payload,
    routingKey,
    exchange: definition.exchange ?? EVENTS_EXCHANGE,
    delivery: definition.delivery ?? 'required',
    whenParked: definition.whenParked ?? 'hold',
    message: (payload, lineage = {}) => ({ contract, id: uuidv7(), payload, lineage }),
  };
  return Object.freeze(contract);
}
