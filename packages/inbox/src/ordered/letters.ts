import { type DeadLetters, type DeadMessage, fromWire, isStub } from '@oncebox/message';
import { type Pool, type Transaction, transaction, withOwnOptions } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { deadLetters } from '../dead-letters.ts';
import { subjectOf } from '../subject.ts';
import { addHeld, awaken, dropHead, dropKey, headOf, reschedule, textOf } from './store.ts';

/** Few, so that one transaction does not last. */
const BATCH = 20;

type Letter = DeadMessage & { readonly id: string; readonly messageId: Buffer | null; readonly reason: string };

/**
 * The dead letters of an ordered consumer. A replay does not go by the broker, where it would come
 * behind all that its key has waiting: the message that holds its key is due at once, as the
 * operator may have edited it; any other joins the end of its key.
 */
export function heldLetters(pool: Pool, consumer: string, isAway: () => Promise<boolean>): DeadLetters {
  const { keep } = deadLetters(pool, consumer, isAway);
  return {
    keep,
    async replay() {
      await letGo(pool, consumer);
      const joined = new Set<string>();
      const found = await transaction(pool, async (tx) => {
        joined.clear();
        // The lock is the claim. For the index see deadLetters.
        const [letters] = await withOwnOptions(tx).execute<(RowDataPacket & Letter)[]>(
          `SELECT CAST(d.id AS CHAR) AS id, d.message_id AS messageId, d.routing_key AS routingKey, d.properties, d.body, d.reason
             FROM dead_letters AS d FORCE INDEX (dead_letters_state)
            WHERE d.state = 'replay' AND d.consumer = ? ORDER BY d.id LIMIT ${BATCH} FOR UPDATE SKIP LOCKED`,
          [consumer],
        );
        for (const letter of letters) {
          const state = await replayOne(tx, consumer, letter, joined);
          await withOwnOptions(tx).execute(
            'UPDATE dead_letters SET state = ?, updated_at = UTC_TIMESTAMP(6) WHERE id = ?',
            [state, letter.id],
          );
        }
        return letters.length;
      });
      await awaken(pool, consumer, joined);
      return found === BATCH;
    },
  };
}

async function replayOne(
  tx: Transaction,
  consumer: string,
  letter: Letter,
  joined: Set<string>,
): Promise<'replayed' | 'dead'> {
  const id = letter.messageId?.toString('utf8');
  // Without an id it can't be handled once, and what cannot be read could not be handled at all:
  // dead as before.
  if (id === undefined || isStub(letter) || !isReadable(letter)) return 'dead';
  const key = await lockKeyOf(tx, consumer, letter.id);
  if (key !== undefined) {
    const head = await headOf(tx, consumer, key);
    await reschedule(tx, consumer, key, { attempts: 0, inMs: 0 });
    // Somebody may have deleted the message that failed: the first one is another then, and stays
    // as it is.
    if (head?.id === id) {
      await withOwnOptions(tx).execute(
        'UPDATE held_messages SET routing_key = ?, properties = ?, body = ? WHERE seq = ?',
        [letter.routingKey, letter.properties, letter.body, head.seq],
      );
      return 'replayed';
    }
  }
  // As `keyOf` of a message: without an aggregate, the message is a key by itself.
  const joinedKey = subjectOf(letter.properties) || id;
  await addHeld(tx, consumer, { key: joinedKey, id, original: letter });
  joined.add(joinedKey);
  return 'replayed';
}

/** Keys whose dead letter was discarded, or deleted, go on without it. */
async function letGo(pool: Pool, consumer: string): Promise<void> {
  const ended = new Set<string>();
  await transaction(pool, async (tx) => {
    ended.clear();
    const [letters] = await withOwnOptions(tx).execute<(RowDataPacket & { id: string; messageId: Buffer | null })[]>(
      `SELECT CAST(k.dead_letter AS CHAR) AS id, d.message_id AS messageId FROM held_keys AS k FORCE INDEX (held_keys_dead)
         LEFT JOIN dead_letters AS d ON d.id = k.dead_letter
        WHERE k.consumer = ? AND k.dead_letter IS NOT NULL AND (d.id IS NULL OR d.state = 'discarded') LIMIT ${BATCH}`,
      [consumer],
    );
    for (const { id, messageId } of letters) {
      const key = await lockKeyOf(tx, consumer, id);
      if (key === undefined) continue;
      const head = await headOf(tx, consumer, key);
      // As in `replayOne`: another message than the one that was given up is not dropped.
      const isAnother = messageId !== null && head?.id !== messageId.toString('utf8');
      if (head === undefined) await dropKey(tx, consumer, key);
      else if (isAnother) await reschedule(tx, consumer, key, { attempts: 0, inMs: 0 });
      else await dropHead(tx, consumer, key, head.seq);
      ended.add(key);
    }
  });
  await awaken(pool, consumer, ended);
}

/** Locks the key that waits for a dead letter; nothing if none does any more. */
async function lockKeyOf(tx: Transaction, consumer: string, letter: string): Promise<string | undefined> {
  const [[row]] = await withOwnOptions(tx).execute<(RowDataPacket & { key: Buffer })[]>(
    `SELECT ordering_key AS \`key\` FROM held_keys FORCE INDEX (held_keys_dead)
      WHERE consumer = ? AND dead_letter = ? FOR UPDATE`,
    [consumer, letter],
  );
  return row === undefined ? undefined : textOf(row.key);
}

/**
 * An operator may have edited it. A held message that cannot be read would be tried in vain for
 * ever.
 */
function isReadable({ properties, body, routingKey }: Letter): boolean {
  try {
    fromWire({ content: body, routingKey, properties: JSON.parse(properties) });
    return true;
  } catch {
    return false;
  }
}
