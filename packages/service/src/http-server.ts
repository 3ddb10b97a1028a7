import { once } from 'node:events';
import type { IncomingMessage, Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';

export interface Listening {
  /** The port it listens on: the one asked for, or the one the system chose for 0. */
  readonly port: number;
  /** Takes no new connection, lets every request under way have its answer, and resolves when the last connection is closed. */
  close(): Promise<void>;
}

export interface ListenSettings {
  readonly port: number;
  /** Default 0.0.0.0: in a container, the loopback interface cannot be reached from outside. */
  readonly host?: string;
}

/**
 * @throws Error of node:net, EADDRINUSE when the port is taken.
 */
export async function listen(server: Server, { port, host = '0.0.0.0' }: ListenSettings): Promise<Listening> {
  // Connections on which no request came yet. Node does not count them as idle, so that a browser's spare connection
  // would hold up a close() until its header time-out.
  const unused = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    unused.add(socket);
    socket.once('close', () => unused.delete(socket));
  });
  server.on('request', ({ socket }: IncomingMessage) => unused.delete(socket));
  server.listen(port, host);
  await once(server, 'listening');
  // A server that listens on TCP has an AddressInfo; the string is for a pipe, and null for a server that does not listen.
  const address = server.address() as AddressInfo;
  return { port: address.port, close: () => close(server, unused) };
}

/** Milliseconds for a first request that was on its way when the server began to close. */
const FIRST_REQUEST_MS = 1_000;

async function close(server: Server, unused: ReadonlySet<Socket>): Promise<void> {
  const closed = once(server, 'close');
  server.close();
  const patience = setTimeout(() => {
    for (const socket of unused) socket.destroy();
  }, FIRST_REQUEST_MS);
  // close() ends the connections that are idle now; one with a request under way becomes idle after its answer, and
  // would then be kept for the client's next request until the keep-alive time-out.
  const sweep = setInterval(() => server.closeIdleConnections(), 20);
  await closed;
  clearTimeout(patience);
  clearInterval(sweep);
}
