import { answersClaim, type Claim, type Contract, MessageError, utf8TextOf } from '@oncebox/message';
import { InboxError, PayloadExpiredError } from './errors.ts';

/** Milliseconds for a payload, its body included. */
const TIMEOUT_MS = 10_000;

type FetchPayload = (claim: Claim, signal: AbortSignal) => Promise<string>;

/**
 * What fetches the payloads of a contract's messages that have a claim check instead.
 *
 * The address is the consumer's setting and not in the message, or whoever can write to the queue could have it fetch what it may reach.
 *
 * @throws InboxError ONCEBOX_INVALID_CONSUMER without an address, or with one below which nothing can be fetched.
 */
export function payloadsAt(contract: Contract, from: string | undefined, timeoutMs = TIMEOUT_MS): FetchPayload {
  const folder = from === undefined ? undefined : folderAt(from);
  if (folder === undefined) {
    throw new InboxError(
      'ONCEBOX_INVALID_CONSUMER',
      `${contract.type}: its payloads may have to be fetched, so on() needs payloadsFrom, the URL at which its writer serves them: ` +
        'http:// or https://, with no credentials and no query',
    );
  }
  return (claim, signal) => fetchPayload(folder, claim, AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]));
}

/** What is neither HTTP nor complete parses too: `localhost:3110` is a URL whose scheme is localhost. `fetch` refuses credentials. */
function folderAt(from: string): URL | undefined {
  const url = URL.parse(from.endsWith('/') ? from : `${from}/`);
  if (url === null || !['http:', 'https:'].includes(url.protocol)) return undefined;
  return `${url.username}${url.password}${url.search}${url.hash}` === '' ? url : undefined;
}

/**
 * @throws PayloadExpiredError, or MessageError ONCEBOX_MALFORMED_MESSAGE, which no later attempt can cure; InboxError ONCEBOX_PAYLOAD_UNAVAILABLE, or ONCEBOX_PAYLOAD_DIFFERS from what
 *   was claimed, which one may: a proxy has answered for the writer, or a deployment is under way.
 */
async function fetchPayload(folder: URL, claim: Claim, signal: AbortSignal): Promise<string> {
  const unavailable = (why: string, cause?: unknown) =>
    new InboxError(
      'ONCEBOX_PAYLOAD_UNAVAILABLE',
      `No payload from ${folder.origin}: ${why}. Look at the writer, and at the handler's payloadsFrom`,
      { cause },
    );
  let status: number;
  let body: Buffer;
  try {
    // A redirection would have the consumer ask wherever somebody else says.
    const response = await fetch(new URL(claim.id, folder), { signal, redirect: 'error' });
    status = response.status;
    body = await readAtMost(claim.bytes, response);
  } catch (error) {
    throw unavailable('it does not answer', error);
  }
  if (status === 410)
    throw new PayloadExpiredError(
      `${folder.origin} no longer keeps the payload: have it keep payloads for longer than messages may wait, dead letters included`,
    );
  if (status !== 200) throw unavailable(`it answered ${status}`);
  if (answersClaim(claim, body)) {
    const text = utf8TextOf(body);
    if (text !== undefined) return text;
    throw new MessageError(
      'ONCEBOX_MALFORMED_MESSAGE',
      'The claimed payload is not UTF-8; its writer keeps it as it is',
    );
  }
  throw new InboxError(
    'ONCEBOX_PAYLOAD_DIFFERS',
    `What ${folder.origin} answered is not the payload that was claimed: is payloadsFrom the writer's own address?`,
  );
}

/** What is over it is not the payload, however long it goes on; one byte of it tells. */
async function readAtMost(bytes: number, { body }: Response): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let left = bytes;
  for await (const chunk of body ?? []) {
    chunks.push(chunk);
    left -= chunk.length;
    if (left < 0) break; // which cancels the rest
  }
  return Buffer.concat(chunks);
}
