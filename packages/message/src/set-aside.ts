import type { DeadLetter } from './inbox.ts';
import { setAsideQueue } from './names.ts';

// A dead letter that its table does not take (a body over the server's max_allowed_packet, a
// trigger that refuses it) is set aside in a queue. A stub stands for it in the table, where people
// and alerts look for dead letters: it says where the message is, and has nothing to send.

/** What the reason of a stub begins with, and of nothing else: the store sees to that. */
export const STUB_REASON = 'ONCEBOX_UNSTORABLE: ';

/** A letter that is none has headers, were they empty. */
const NO_PROPERTIES = '{}';

export const isStub = ({ reason, properties }: Pick<DeadLetter, 'reason' | 'properties'>): boolean =>
  reason.startsWith(STUB_REASON) && properties === NO_PROPERTIES;

/**
 * The stub of a dead letter, with the hash of its copy: the letter takes its place once it is kept.
 *
 * @param isBare without what came with the message, which may be what the table refuses.
 */
export function stubOf(letter: DeadLetter, consumer: string, why: string, isBare: boolean): DeadLetter {
  const queue = setAsideQueue(consumer);
  const how = `when that is mended, "oncebox dead bring-back ${consumer}" tries again`;
  return {
    messageId: isBare ? undefined : letter.messageId,
    type: isBare ? undefined : letter.type,
    version: isBare ? undefined : letter.version,
    routingKey: isBare ? '' : letter.routingKey,
    properties: NO_PROPERTIES,
    body: Buffer.alloc(0),
    reason: `${STUB_REASON}the message is in the queue ${queue}, because ${why}; ${how}. It was given up for: ${letter.reason}`,
    errorClass: letter.errorClass,
    attempts: letter.attempts,
    firstFailedAt: letter.firstFailedAt,
    lastFailedAt: letter.lastFailedAt,
    occurredAt: isBare ? undefined : letter.occurredAt,
    copyHash: letter.stubHash ?? letter.copyHash,
  };
}
