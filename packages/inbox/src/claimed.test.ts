import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type Claim, claimFor, claimIn, defineMessage } from '@oncebox/message';
import { expect, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import { payloadsAt } from './claimed.ts';
import { on, onBatch } from './handling.ts';

/** Against a real HTTP server that plays the writer. */

const Drawn = defineMessage({
  type: 'Drawn',
  version: 1,
  aggregateType: 'picture',
  aggregateId: () => 'p',
  routingKey: 'picture.drawn',
  payload: z.string(),
  overLimit: 'claim-check',
});
const ID = '01a1fd1a-f5ca-7431-98b0-6d5fad2b72f1';
const PAYLOAD = JSON.stringify('ä'.repeat(10));
const claim = claimIn(Drawn, { version: 1, payload: claimFor(ID, PAYLOAD) }) ?? expect.fail();

async function fetchFrom(respond: RequestListener, asked: Claim = claim): Promise<string> {
  const server = createServer(respond).listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo; // it listens on TCP
  return await payloadsAt(Drawn, `http://127.0.0.1:${port}/payloads`, 2_000)(asked, new AbortController().signal);
}

test('the payload is fetched from below the address, and is the text that was claimed', async () => {
  expect(await fetchFrom(({ url }, response) => response.end(url === `/payloads/${ID}` ? PAYLOAD : ''))).toBe(PAYLOAD);
});

test.each<[string, RequestListener, string]>([
  ['no longer has it', (_, response) => response.writeHead(410).end(), 'ONCEBOX_PAYLOAD_EXPIRED'],
  ['does not know the path yet', (_, response) => response.writeHead(404).end(), 'ONCEBOX_PAYLOAD_UNAVAILABLE'],
  ['fails', (_, response) => response.writeHead(503).end(), 'ONCEBOX_PAYLOAD_UNAVAILABLE'],
  ['breaks off', (_, response) => response.destroy(), 'ONCEBOX_PAYLOAD_UNAVAILABLE'],
  [
    'sends elsewhere',
    ({ url }, response) =>
      url === '/other' ? response.end(PAYLOAD) : response.writeHead(302, { location: '/other' }).end(),
    'ONCEBOX_PAYLOAD_UNAVAILABLE',
  ],
  ['never answers', () => undefined, 'ONCEBOX_PAYLOAD_UNAVAILABLE'],
  ['has something else', (_, response) => response.end('"other"'), 'ONCEBOX_PAYLOAD_DIFFERS'],
  ['has another of the same size', (_, response) => response.end('x'.repeat(22)), 'ONCEBOX_PAYLOAD_DIFFERS'],
])('a writer that %s is told apart', async (_, respond, code) => {
  await expect(fetchFrom(respond)).rejects.toMatchObject({ code });
});

test('of an answer that does not end no more is read than was claimed', async () => {
  let cut = false;
  const endless: RequestListener = (_, response) => {
    response.on('close', () => {
      cut = true;
    });
    const more = (): void => {
      while (!cut && response.write('x'.repeat(1_000)));
    };
    response.on('drain', more);
    more();
  };
  await expect(fetchFrom(endless)).rejects.toMatchObject({ code: 'ONCEBOX_PAYLOAD_DIFFERS' });
  await expect.poll(() => cut).toBe(true);
});

test('a payload that is not UTF-8 is refused for good, although it is what was claimed', async () => {
  const latin1 = Buffer.from('"ä"', 'latin1');
  const sha256 = createHash('sha256').update(latin1).digest('hex');
  const answer = fetchFrom((_, response) => response.end(latin1), { id: ID, bytes: latin1.length, sha256 });
  await expect(answer).rejects.toMatchObject({
    code: 'ONCEBOX_MALFORMED_MESSAGE',
    message: expect.stringContaining('not UTF-8'),
  });
});

test.each([
  ['no URL', 'here'],
  ['a host without http://', 'localhost:3110'],
  ['another scheme', 'ftp://pictures'],
  ['credentials', 'http://me:secret@pictures'],
  ['a query', 'http://pictures/?key=secret'],
])('an address with %s is refused, and not shown', (_, payloadsFrom) => {
  const handling = () => on(Drawn, { handle: async () => undefined, payloadsFrom });
  expect(handling).toThrow('with no credentials and no query');
  expect(handling).not.toThrow('secret');
});

test('a contract whose payloads may be claimed wants an address to fetch them from, and no batches', () => {
  const handle = async () => undefined;
  expect(() => on(Drawn, { handle })).toThrow('payloadsFrom');
  expect(() => onBatch(Drawn, { handle })).toThrow('handle it with on()');
  expect(on(Drawn, { handle, payloadsFrom: 'http://127.0.0.1' }).prepares).toBe(true);
});
