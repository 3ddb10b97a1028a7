import type { z } from 'zod';
import { MessageError } from './errors.ts';

/** A question to one service that waits for the answer, on a queue of its own. Nothing of it is kept: who gets no answer asks again. */
export interface RequestContract<Question = unknown, Answer = unknown> {
  readonly type: string;
  /** `<owner>.<type>`. */
  readonly queue: string;
  readonly question: z.ZodType<Question>;
  readonly answer: z.ZodType<Answer>;
}

export interface RequestDefinition<Question, Answer> {
  /** PascalCase, in the imperative: `CheckAvailability`. */
  readonly type: string;
  /** The consumer that answers, or the service: the beginning of the queue's name. */
  readonly owner: string;
  readonly question: z.ZodType<Question>;
  readonly answer: z.ZodType<Answer>;
}

/** @throws MessageError ONCEBOX_INVALID_CONTRACT for a name that does not make a queue's. */
export function defineRequest<Question, Answer>({
  owner,
  ...definition
}: RequestDefinition<Question, Answer>): RequestContract<Question, Answer> {
  const queue = `${owner}.${definition.type}`;
  if (!/^[a-z][a-z0-9._-]*\.[A-Z][A-Za-z0-9]*$/.test(queue) || queue.length > 200) {
    throw new MessageError(
      'ONCEBOX_INVALID_CONTRACT',
      `Request contract ${JSON.stringify(definition.type)}: type must be PascalCase, and owner a consumer's name`,
    );
  }
  return Object.freeze({ ...definition, queue });
}
