import { MessageError, type Received } from '@oncebox/message';
import { asBytes, type Transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import type { Failure } from './verdicts.ts';
import { liveWorkers } from './workers.ts';

/**
 * What a message that this worker does not handle is to its consumer: one for another worker, which
 * waits without a failed attempt, as while a release is rolled out; one of a type that the consumer
 * has handled before; or one that it has never known. Asked for each such message, as the other
 * worker may have come a moment ago: it writes itself down before it binds its queue.
 */
export async function explainUnknown(
  db: Pick<Transaction, 'query'>,
  consumer: string,
  failure: Failure,
  { type, version }: Pick<Received, 'type' | 'version'>,
): Promise<Failure> {
  const live = await liveWorkers(db, consumer);
  if (live.some(({ definition: { versions } }) => Object.hasOwn(versions, type) && versions[type]?.includes(version))) {
    const what = `this worker of ${consumer} does not handle ${type} v${version}, and another one does: it waits for that one`;
    return { kind: 'retry', error: new MessageError('ONCEBOX_HANDLED_ELSEWHERE', what), uncounted: 'elsewhere' };
  }
  if (live.some(({ definition: { versions } }) => Object.hasOwn(versions, type))) return failure;
  const [bound] = await db.query<RowDataPacket[]>(
    'SELECT 1 FROM consumer_bindings WHERE consumer = ? AND type = ? LIMIT 1',
    [asBytes(consumer), asBytes(type)],
  );
  if (bound.length === 0) return failure;
  const what =
    `${consumer} handles ${type} no longer and is still bound for it: "oncebox consumers unbind ${consumer} ${type}" removes the ` +
    'binding; a release that handles it can replay what is dead by then';
  return { kind: 'retry', error: new MessageError('ONCEBOX_TYPE_REMOVED', what) };
}
