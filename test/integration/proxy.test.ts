import { once } from 'node:events';
import { createServer, type Socket, connect as tcp } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startProxy, type TcpProxy } from '../support/proxy.ts';

/** What the fault tests rely on: a proxy that did less than it says would make them pass for nothing. */

const server = createServer({ allowHalfOpen: true }, (socket) => {
  sessions.push(socket);
  socket.on('data', (data) => {
    received += data.length;
    if (data.length < 100) socket.write(`echo ${data}`);
  });
  socket.on('end', () => socket.end('bye'));
  socket.on('error', () => undefined);
});
const sessions: Socket[] = [];
let received = 0;
let url: string;
beforeAll(async () => {
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const address = server.address();
  url = `tcp://user:secret@127.0.0.1:${typeof address === 'object' ? address?.port : ''}/path?x=1`;
});
afterAll(() => {
  server.close();
  for (const session of sessions) session.destroy();
});

interface Client {
  readonly socket: Socket;
  /** All that came so far, and how it ended. */
  readonly seen: () => string;
}

async function connect(proxy: TcpProxy): Promise<Client> {
  let seen = '';
  const socket = tcp({ host: '127.0.0.1', port: Number(new URL(proxy.url).port), allowHalfOpen: true });
  socket.on('data', (data) => {
    seen += data;
  });
  socket.on('end', () => {
    seen += ' end';
  });
  socket.on('error', (error) => {
    seen += Reflect.get(error, 'code');
  });
  await once(socket, 'connect');
  return { socket, seen: () => seen };
}
/** Not `once`, which rejects on the error that comes before. */
const closeOf = (session: Socket | undefined) => new Promise((resolve) => session?.once('close', resolve));
const sees = (client: Client) => expect.poll(client.seen, { timeout: 10_000, interval: 5 });

test('passes both directions and the end of each, and keeps the rest of the URL', async () => {
  const proxy = await startProxy(url);
  expect(proxy.url).toBe(`tcp://user:secret@${proxy.address}/path?x=1`);
  const client = await connect(proxy);
  client.socket.write('one');
  await sees(client).toBe('echo one');
  client.socket.end();
  await sees(client).toBe('echo onebye end');
});

test('refuses: what is open is reset, what is new is refused, until it passes again on the same port', async () => {
  const proxy = await startProxy(url);
  const client = await connect(proxy);
  await proxy.refuse();
  await sees(client).toBe('ECONNRESET');
  await expect(connect(proxy)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  await proxy.pass();
  const next = await connect(proxy);
  next.socket.write('two');
  await sees(next).toBe('echo two');
});

test('cuts what is open, on both sides, and takes new connections', async () => {
  const proxy = await startProxy(url);
  const client = await connect(proxy);
  client.socket.write('x');
  await sees(client).toBe('echo x');
  const closed = closeOf(sessions.at(-1));
  proxy.cut();
  await sees(client).toBe('echo xECONNRESET');
  await closed;
  const next = await connect(proxy);
  next.socket.write('y');
  await sees(next).toBe('echo y');
});

test('a black hole for answers lets requests arrive; what it held is delivered in order when it passes, the end included', async () => {
  const proxy = await startProxy(url);
  const client = await connect(proxy);
  proxy.blackhole('toClient');
  const before = received;
  client.socket.write('a');
  await expect.poll(() => received, { timeout: 10_000 }).toBe(before + 1);
  client.socket.end();
  // Silence proves nothing at once; by the time that a later question has its answer, this one would have had it.
  const witness = await connect(await startProxy(url));
  witness.socket.write('b');
  await sees(witness).toBe('echo b');
  expect(client.seen()).toBe('');
  await proxy.pass();
  await sees(client).toBe('echo abye end');
});

test('a black hole for requests lets nothing arrive, a reset neither, and presses back on the sender', async () => {
  const proxy = await startProxy(url);
  const client = await connect(proxy);
  client.socket.write('c');
  await sees(client).toBe('echo c');
  const session = sessions.at(-1);
  proxy.blackhole('toServer', 'toClient');
  const before = received;
  const all = 32 * 1024 * 1024;
  client.socket.write(Buffer.alloc(all));
  await expect
    .poll(() => client.socket.bytesWritten - client.socket.writableLength, { timeout: 10_000 })
    .toBeLessThan(all);
  client.socket.resetAndDestroy();
  const witness = await connect(await startProxy(url));
  witness.socket.write('d');
  await sees(witness).toBe('echo d');
  expect(received).toBe(before + 1);
  expect(session?.destroyed).toBe(false);
  const closed = closeOf(session);
  await proxy.pass();
  await closed;
});

test('latency delays each direction', async () => {
  const proxy = await startProxy(url);
  const client = await connect(proxy);
  proxy.latency(100);
  const begun = performance.now();
  client.socket.write('e');
  await sees(client).toBe('echo e');
  expect(performance.now() - begun).toBeGreaterThanOrEqual(195);
});
