import { once } from 'node:events';
import { Agent, createServer, get, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { expect, it } from 'vitest';
import { listen } from './http-server.ts';

it('close() lets a request under way have its answer, and waits for no connection that has none', {
  timeout: 4_000,
}, async () => {
  const server = createServer();
  const { port, close } = await listen(server, { port: 0, host: '127.0.0.1' });
  const arrived = once(server, 'request') as Promise<[IncomingMessage, ServerResponse]>;

  const silent = connect(port, '127.0.0.1');
  const agent = new Agent({ keepAlive: true });
  const answered = once(get({ port, host: '127.0.0.1', agent }), 'response') as Promise<[IncomingMessage]>;
  const [, response] = await arrived;

  const closed = close();
  const early = await Promise.race([closed.then(() => 'closed'), once(silent, 'close').then(() => 'still open')]);
  expect(early).toBe('still open');
  response.end('done');
  const [answer] = await answered;
  expect(Buffer.concat(await answer.toArray()).toString()).toBe('done');
  // Its keep-alive connection would stay for 5 s, past this test's time-out.
  await closed;
});
