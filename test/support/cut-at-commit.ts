import { once } from 'node:events';
import { connect, createServer } from 'node:net';

export interface CutAtCommit {
  /** The database's URL, by way of this proxy. */
  readonly url: string;
  close(): Promise<void>;
}

/**
 * A way to the database that breaks off when a client has sent COMMIT, before it can have the answer. `proxy.ts` breaks the
 * network at a moment; this one reads what passes, to hit the one moment at which the client cannot know the outcome.
 *
 * @param arrives whether the COMMIT is still passed on: it takes effect, or the server rolls back.
 */
export async function cutAtCommit(databaseUrl: string, arrives: boolean): Promise<CutAtCommit> {
  const url = new URL(databaseUrl);
  const { hostname, port } = url;
  const proxy = createServer((client) => {
    const server = connect(Number(port || 3306), hostname);
    client.on('data', (data) => {
      // At the end: "READ COMMITTED" comes before.
      if (!data.toString('latin1').endsWith('COMMIT')) return server.write(data);
      client.destroy();
      return arrives ? server.end(data) : server.destroy();
    });
    server.on('data', (data) => client.write(data));
    client.on('error', () => undefined).on('close', () => server.end());
    server.on('error', () => client.destroy()).on('close', () => client.destroy());
  });
  await once(proxy.listen(0, '127.0.0.1'), 'listening');
  const address = proxy.address();
  if (address === null || typeof address === 'string') throw new Error('The proxy does not listen on a port');
  url.host = `127.0.0.1:${address.port}`;
  return {
    url: url.href,
    async close() {
      proxy.close();
      await once(proxy, 'close');
    },
  };
}
