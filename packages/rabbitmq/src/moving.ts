import { randomBytes } from 'node:crypto';
import { classOf, deadQueue, fieldOf, type Inbox, nameOf, reasonOf } from '@oncebox/message';
import type { ConsumeMessage } from 'amqplib';
import { copyTo, type Failed } from './copies.ts';
import { originalOf } from './dead-letter.ts';
import type { Logger } from './logger.ts';
import { isTime, NOTE } from './notes.ts';
import type { Sender } from './sender.ts';
import { sendCopy } from './wrap.ts';

export interface MovingOptions {
  readonly inbox: Pick<Inbox, 'name' | 'deadLetters'>;
  readonly sender: Sender;
  readonly logger: Logger;
}

/**
 * Where a message that failed is now, so that its delivery can be acknowledged (`moved`: a copy is
 * safe in the queue; `kept`: it is a dead letter already). `stuck`: no copy of it can be sent and
 * no store takes it, so the broker alone can move it. `unsent`: an outage.
 */
export type Moved =
  | { readonly kind: 'moved' | 'kept' | 'stuck' }
  | { readonly kind: 'unsent'; readonly reason: string };

/**
 * Puts a copy of a message that failed into a queue of its consumer's, with a record of the
 * failure.
 */
export async function moveFailed(
  { inbox, sender, logger }: MovingOptions,
  queue: string,
  message: ConsumeMessage,
  failure: Failed,
): Promise<Moved> {
  const outcome = await sendCopy(sender, copyTo(queue, message, failure));
  if (outcome.kind === 'confirmed') return { kind: 'moved' };
  if (outcome.kind !== 'unsendable') return { kind: 'unsent', reason: outcome.reason };
  const why = `no copy of it can be sent to ${queue}: ${outcome.reason}`;
  const fields = { consumer: inbox.name, messageId: message.properties.messageId };
  logger.error(fields, `${why}; it is kept as a dead letter at once`);
  try {
    if (inbox.deadLetters === undefined) return { kind: 'stuck' };
    await inbox.deadLetters.keep(letterOf(message, failure, why));
    return { kind: 'kept' };
  } catch (error) {
    if (fieldOf(error, 'code') !== 'ONCEBOX_UNSTORABLE') return { kind: 'unsent', reason: classOf(error) };
    const after = `${reasonOf(failure.error)}, after ${failure.attempts} attempts`;
    logger.error(
      fields,
      `it can be neither copied nor stored, so the broker moves it to ${deadQueue(inbox.name)}: ${after}`,
    );
    return { kind: 'stuck' };
  }
}

/** The dead letter of a message that is not on its way through the dead queue. */
function letterOf(message: ConsumeMessage, { attempts, error }: Failed, why: string) {
  const first: unknown = message.properties.headers?.[NOTE.firstFailure];
  const now = new Date();
  return {
    ...originalOf(message),
    reason: `${reasonOf(error)} (${why})`,
    errorClass: nameOf(error),
    attempts,
    firstFailedAt: isTime(first) ? new Date(first) : now,
    lastFailedAt: now,
    // There is no copy by which one death could be told from another.
    copyHash: randomBytes(32),
  };
}
