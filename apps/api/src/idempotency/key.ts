import { Problem } from '../problem.ts';

/** A structured field's string (RFC 9651), and bytes beyond ASCII, which it does not have and clients send. */
const QUOTED = /^"((?:[\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\["\\])+)"$/;
/** Without quotes, as the draft does not have it and most clients send it: visible ASCII that separates nothing in a header. */
const BARE = /^[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+$/;

/** What the column holds. */
const MAX_BYTES = 255;

/**
 * The key that a request names, as the bytes that were sent: keys that differ by case, an accent or a space are different
 * keys. `"abc"` and `abc` are the same.
 *
 * @param header The field's value; Node joins several with commas, and one request has one key.
 * @returns undefined without the header.
 * @throws Problem malformed-idempotency-key.
 */
export function idempotencyKeyOf(header: string | undefined): Buffer | undefined {
  if (header === undefined) return undefined;
  const key = QUOTED.exec(header)?.[1]?.replaceAll(/\\(.)/g, '$1') ?? BARE.exec(header)?.[0];
  if (key === undefined || key.length > MAX_BYTES) throw new Problem('malformed-idempotency-key');
  return Buffer.from(key, 'latin1');
}
