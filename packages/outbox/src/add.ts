import {
  type Contract,
  claimFor,
  inActiveTrace,
  MAX_BODY_BYTES,
  type Message,
  MessageError,
  type NewOutboxRow,
  toOutboxRow,
} from '@oncebox/message';
import { assertTransaction, insertRow, type Transaction, withOwnOptions } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { keepPayload } from './claimed.ts';

/**
 * Smaller rows fit every server's packet (its least default is 1 MiB), so only larger ones pay a
 * round trip to ask.
 */
const SURE_TO_FIT_BYTES = 512 * 1024;
/** The other columns and the protocol's own bytes. */
const ROW_OVERHEAD_BYTES = 16 * 1024;

/**
 * Writes a message into the outbox of the transaction's schema. It is announced if, and only if,
 * the transaction commits.
 *
 * Messages of one aggregate go out in the order of their rows. That is the order of their commits
 * as long as the writer holds its aggregate's row lock when it adds: insert or update the aggregate
 * first, then add.
 *
 * With tracing on, the message belongs to the span that is active here, whatever `traceparent` its
 * lineage brings.
 *
 * A payload over its contract's `maxBytes` is refused, or, where the contract says `overLimit:
 * 'claim-check'`, kept in the same transaction (`servePayloads`), and the message says where.
 *
 * @throws DatabaseError ONCEBOX_NOT_A_TRANSACTION for a pool or a connection: the row would not be
 *   atomic with the change.
 * @throws MessageError ONCEBOX_INVALID_PAYLOAD or ONCEBOX_PAYLOAD_TOO_LARGE when its contract
 *   rejects the payload, ONCEBOX_MESSAGE_TOO_LARGE when the database or the broker would. All
 *   before anything is written: a message that cannot be sent must never commit.
 */
export async function add(tx: Transaction, message: Message): Promise<void> {
  assertTransaction(tx);
  const row = toOutboxRow(inActiveTrace(message));
  const bytes = Buffer.byteLength(row.payload);
  const isUsual = bytes <= Math.min(message.contract.maxBytes, SURE_TO_FIT_BYTES);
  // Without a pause for a payload of usual size: an add that its caller does not await still comes
  // before the caller's next statement.
  const payload = isUsual ? row.payload : await withinLimit(tx, message.contract, row, bytes);
  await insertRow(tx, 'outbox', { ...row, payload });
}

/** @returns what is sent as the payload. */
async function withinLimit(
  tx: Transaction,
  { maxBytes, overLimit }: Contract,
  { id, type, version, payload }: NewOutboxRow,
  bytes: number,
): Promise<string> {
  if (bytes > maxBytes && overLimit === 'refuse') {
    throw new MessageError(
      'ONCEBOX_PAYLOAD_TOO_LARGE',
      `${type} v${version}: the payload has ${bytes} bytes and its contract allows ${maxBytes}. Send less, or a reference to the data; ` +
        "or let the contract say maxBytes, or overLimit: 'claim-check' in a new version.",
    );
  }
  await refuseOversize(tx, type, bytes);
  if (bytes <= maxBytes) return payload;
  await keepPayload(tx, id, payload);
  return claimFor(id, payload);
}

async function refuseOversize(tx: Transaction, type: string, bytes: number): Promise<void> {
  if (bytes <= SURE_TO_FIT_BYTES) return;
  const [[server]] = await withOwnOptions(tx).query<(RowDataPacket & { packet: number })[]>(
    'SELECT @@max_allowed_packet AS packet',
  );
  const limit = Math.min(MAX_BODY_BYTES, (server?.packet ?? 0) - ROW_OVERHEAD_BYTES);
  if (bytes <= limit) return;
  throw new MessageError(
    'ONCEBOX_MESSAGE_TOO_LARGE',
    `${type}: the payload has ${bytes} bytes and at most ${limit} can be stored and sent. Send a reference to the data instead.`,
  );
}
