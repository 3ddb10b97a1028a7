import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';

/** What stands between our processes and a server, as a balancer or NAT does. */
export interface Passage {
  /** The server's URL, by way of this passage. */
  readonly through: (url: string) => string;
  /**
   * Connections that are open now stay open, and nothing more comes through them, the end of one
   * neither; new ones pass. So a failover looks, and NAT that has forgotten a connection.
   */
  silence(): void;
  close(): void;
}

/** @param url of the server, with a port */
export async function openPassage(url: string): Promise<Passage> {
  const { hostname: host, port } = new URL(url);
  const pairs = new Set<readonly [Socket, Socket]>();
  const server = createServer({ noDelay: true }, (client) => {
    const upstream = connect({ host, port: Number(port), noDelay: true });
    const pair = [client, upstream] as const;
    pairs.add(pair);
    client.pipe(upstream);
    upstream.pipe(client);
    for (const socket of pair) {
      socket.on('error', () => undefined); // `close` follows
      socket.once('close', () => {
        if (!pairs.delete(pair)) return; // silent, or the other end's doing
        for (const each of pair) each.destroy();
      });
    }
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('A passage listens on no port');
  return {
    through(given) {
      const way = new URL(given);
      way.host = `127.0.0.1:${address.port}`;
      return way.href;
    },
    silence() {
      for (const socket of [...pairs].flat()) {
        socket.unpipe();
        socket.resume(); // what comes is lost
      }
      pairs.clear();
    },
    close() {
      server.close();
      for (const socket of [...pairs].flat()) socket.destroy();
    },
  };
}
