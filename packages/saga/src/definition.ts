import type { Message, ReplyTo } from '@oncebox/message';
import type { z } from 'zod';
import { SagaError } from './errors.ts';

// Methods, not function properties, so that a `Saga<Order>` is a `Saga`: see Contract in @oncebox/message.

/**
 * One thing that a saga has others do, and how it is undone. Its functions see nothing but their arguments: they are called again
 * when a command is sent again, perhaps after a restart.
 */
export interface Step<Data> {
  readonly name: string;
  /** Whether the step belongs to the way of this saga at all. Default: it does. A step that does not is neither done nor undone. */
  when?(data: Data): boolean;
  /** The command that does it. A step without one is done as soon as it is reached: it only has something to undo. */
  action?(data: Data, replyTo: ReplyTo): Message;
  /**
   * The command that undoes it. It may be sent without the action having been done, after a time-out, and may arrive before it:
   * its owner must then see to it that an action that comes late does nothing. A step without one cannot be given up once
   * its command is out: with no answer to it the saga is stuck.
   *
   * @param reason why the saga turned back: the word of the refusal, or `timed_out`.
   */
  compensation?(data: Data, replyTo: ReplyTo, reason: string): Message;
  /** Milliseconds until a command without an answer is sent again; each further wait is twice as long. Default 30,000. */
  readonly timeoutMs?: number;
  /** How often the action is sent in all before the step is given up. Default 3. A compensation is sent ten times, and then the saga is stuck. */
  readonly attempts?: number;
}

export interface SagaDefinition<Data> {
  /** Also the name of the consumer that takes its answers, and what its rows are found by: a new name would leave running sagas behind. */
  readonly name: string;
  /** What its steps need to know; it is stored as JSON text and does not change. */
  readonly data: z.ZodType<Data>;
  /** Done one after the other; undone in reverse. */
  readonly steps: readonly Step<Data>[];
}

export interface Saga<Data = unknown> {
  readonly name: string;
  readonly schema: z.ZodType<Data>;
  readonly steps: readonly Step<Data>[];
}

const NAME = /^[a-z][a-z0-9._-]{0,99}$/;

/** @throws SagaError ONCEBOX_INVALID_SAGA for names that are none or come twice, for a step without commands and for limits below 1. */
export function defineSaga<Data>({ name, data, steps }: SagaDefinition<Data>): Saga<Data> {
  const refuse = (why: string): never => {
    throw new SagaError('ONCEBOX_INVALID_SAGA', `Saga ${JSON.stringify(name)}: ${why}`);
  };
  for (const each of [name, ...steps.map((step) => step.name)]) {
    if (!NAME.test(each)) refuse('it and its steps have names of 1 to 100 of a-z, 0-9, ".", "_", "-", a letter first');
  }
  if (steps.length === 0) refuse('it has no steps');
  if (new Set(steps.map((step) => step.name)).size < steps.length) refuse('two of its steps have one name');
  for (const { name: step, action, compensation, timeoutMs = 1, attempts = 1 } of steps) {
    if (action === undefined && compensation === undefined) refuse(`step ${step} has neither action nor compensation`);
    if (![timeoutMs, attempts].every((limit) => Number.isInteger(limit) && limit >= 1)) {
      refuse(`step ${step}: timeoutMs and attempts are whole numbers from 1 on`);
    }
  }
  return { name, schema: data, steps };
}
