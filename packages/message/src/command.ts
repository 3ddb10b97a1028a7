import { z } from 'zod';
import { type Contract, defineMessage, type Lineage, type Message } from './contract.ts';
import { COMMANDS_EXCHANGE } from './names.ts';

/** Which step of which saga waits for the answer to a command: every command carries it, and every answer gives it back. */
export const replyTo = z.strictObject({
  /** The saga's name, which is also that of the consumer that takes the answers. */
  saga: z.string().min(1).max(100),
  id: z.string().min(1).max(255),
  step: z.string().min(1).max(100),
  /** Whether the step is being done or undone: a late answer to the one must not pass for an answer to the other. */
  direction: z.enum(['forward', 'back']),
});
export type ReplyTo = z.infer<typeof replyTo>;

export interface CommandDefinition<Type extends string, Payload extends { readonly replyTo: ReplyTo }> {
  /** PascalCase, in the imperative: `ReserveStock`. */
  readonly type: Type;
  readonly version: number;
  /** The one consumer that handles it; `defineConsumer` refuses it to every other. */
  readonly owner: string;
  readonly payload: z.ZodType<Payload>;
}

/**
 * The contract of a command: a message to one owner, on an exchange of its own, that asks for an answer (`reply`).
 *
 * It is required, as a command that nobody owns is an error: it waits in its outbox, as held, until its owner has a queue. All
 * commands of one saga have one ordering key, so that what undoes a step is never sent before what does it.
 *
 * @throws MessageError ONCEBOX_INVALID_CONTRACT
 */
export function defineCommand<const Type extends string, Payload extends { readonly replyTo: ReplyTo }>({
  owner,
  ...definition
}: CommandDefinition<Type, Payload>): Contract<Type, Payload> {
  return defineMessage({
    ...definition,
    aggregateType: 'saga',
    aggregateId: (payload) => payload.replyTo.id,
    exchange: COMMANDS_EXCHANGE,
    routingKey: `${owner}.${definition.type}`,
  });
}

const outcome = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('done') }),
  /** A decision, not a failure: asking again would get the same answer. */
  z.strictObject({ kind: z.literal('refused'), reason: z.string().min(1).max(100) }),
]);
/** `reason` is a word of the domain (`out_of_stock`), without personal data: it is stored and shown. */
export type CommandOutcome = z.infer<typeof outcome>;

const replyPayload = z.strictObject({ replyTo, outcome });
export type ReplyPayload = z.infer<typeof replyPayload>;

/**
 * The contract of the answers to a saga's commands. Each saga has a type of its own, because `oncebox verify` expects a message from
 * everyone who has registered for its type.
 */
export const repliesTo = (saga: string): Contract<string, ReplyPayload> =>
  defineMessage({
    type: `CommandReplied.${saga}`,
    version: 1,
    aggregateType: 'saga',
    aggregateId: (payload) => payload.replyTo.id,
    exchange: COMMANDS_EXCHANGE,
    routingKey: `${saga}.CommandReplied`,
    payload: replyPayload,
  });

/** The answer to a command: to be added to the outbox in the transaction that did what was asked, or decided not to. */
export const reply = (
  command: { readonly replyTo: ReplyTo },
  outcome: CommandOutcome,
  lineage: Lineage,
): Message<string, ReplyPayload> =>
  repliesTo(command.replyTo.saga).message({ replyTo: command.replyTo, outcome }, lineage);
