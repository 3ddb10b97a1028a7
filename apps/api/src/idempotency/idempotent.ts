import { createHash } from 'node:crypto';
import { type Pool, type Transaction, type TransactionOptions, transaction } from '@oncebox/mysql';
import type { Request, Response } from 'express';
import { bytesOf } from '../body.ts';
import { Problem } from '../problem.ts';
import { idempotencyKeyOf } from './key.ts';
import { type Answer, useKey } from './store.ts';

/**
 * Does the work of a request in a transaction and sends its answer. A request that names an Idempotency-Key does it once: the
 * answer is stored in the same transaction, and sent again to every repetition.
 *
 * Only the answer of work that committed is stored. What throws has changed nothing, its key included, so that a client may
 * correct the request, or wait for what stood in the way, and send it under the same key.
 *
 * @param work As for `transaction()`: it may run more than once, of which one run takes effect.
 * @throws Problem malformed-idempotency-key, request-in-progress, idempotency-key-reused; what `work` and `transaction()` throw.
 */
export async function idempotent(
  pool: Pool,
  request: Request,
  response: Response,
  work: (tx: Transaction) => Promise<Answer>,
  options: TransactionOptions,
): Promise<void> {
  const key = idempotencyKeyOf(request.get('idempotency-key'));
  if (key === undefined) return send(response, await transaction(pool, work, options));
  const requestHash = hashOf(request);
  const outcome = await transaction(pool, (tx) => useKey(tx, key, requestHash, work), options);
  if (outcome === 'in-progress') throw new Problem('request-in-progress', { headers: { 'retry-after': '1' } });
  if ('made' in outcome) return send(response, outcome.made);
  if (!outcome.stored.requestHash.equals(requestHash)) throw new Problem('idempotency-key-reused');
  send(response.set('idempotency-replayed', 'true'), outcome.stored);
}

/** Of the bytes, not of what they mean: of two bodies that are written differently nobody need prove that they mean the same. */
const hashOf = (request: Request): Buffer =>
  createHash('sha256').update(`${request.method} ${request.originalUrl}\n`).update(bytesOf(request)).digest();

function send(response: Response, { status, headers, body }: Answer): void {
  response.status(status).set(headers).send(body);
}
