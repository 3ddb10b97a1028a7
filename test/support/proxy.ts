import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach } from 'vitest';

export type Direction = 'toServer' | 'toClient';

/** A TCP proxy in front of a server, to break the network between it and a process of ours. It begins by letting everything pass. */
export interface TcpProxy {
  /** `127.0.0.1:port`, as log lines name it. */
  readonly address: string;
  /** The server's URL, by way of this proxy. */
  readonly url: string;
  /** The network is well again: new connections are taken, what was held is delivered, without delay. */
  pass(): Promise<void>;
  /** Nobody listens: connections are reset, new ones refused. */
  refuse(): Promise<void>;
  /** Resets every connection; new ones pass. */
  cut(): void;
  /** Connections stay, and nothing more comes through, the end of a connection neither: what a lost network looks like. */
  blackhole(...directions: Direction[]): void;
  /** Connections of now stay and nothing more comes through them, ever; new ones pass. What a failover, or a NAT that forgets, leaves. */
  strand(): void;
  /** Delays everything by so many milliseconds in each direction. */
  latency(milliseconds: number): void;
}

const open: TcpProxy[] = [];
afterEach(async () => {
  for (const proxy of open.splice(0)) await proxy.refuse();
});

/** Bytes in a direction of a connection before its sender feels the back-pressure. */
const BUFFER_BYTES = 256 * 1024;

/** @param url of the server, with a port; credentials and path are kept. Ends when the test does. */
export async function startProxy(url: string): Promise<TcpProxy> {
  const target = new URL(url);
  const connections = new Set<Socket>();
  let gates = { toServer: openGate(), toClient: openGate() };
  let delayMs = 0;

  function relay(from: Socket, to: Socket, direction: Direction): void {
    const own = gates;
    let queued = 0;
    let turn: Promise<unknown> = Promise.resolve();
    const inTurn = (act: () => unknown): void => {
      const due = delayMs > 0 ? sleep(delayMs) : undefined;
      turn = turn
        .then(() => due)
        .then(() => own[direction].opened)
        .then(act);
    };
    from.on('data', (chunk: Buffer) => {
      queued += chunk.length;
      if (queued > BUFFER_BYTES) from.pause();
      inTurn(async () => {
        if (!to.destroyed && !to.write(chunk))
          await new Promise((resolve) => to.once('drain', resolve).once('close', resolve));
        queued -= chunk.length;
        from.resume();
      });
    });
    from.on('end', () => inTurn(() => to.end()));
    from.on('error', () => inTurn(() => to.resetAndDestroy()));
    from.once('close', () => connections.delete(from));
  }

  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    const upstream = connect({ host: target.hostname, port: Number(target.port), allowHalfOpen: true, noDelay: true });
    connections.add(client).add(upstream);
    relay(client, upstream, 'toServer');
    relay(upstream, client, 'toClient');
  });
  const port = await listenSomewhere(server);
  const through = new URL(url);
  through.host = `127.0.0.1:${port}`;

  const cut = (): void => {
    for (const socket of connections) socket.resetAndDestroy();
  };
  const proxy: TcpProxy = {
    address: through.host,
    url: through.href,
    async pass() {
      delayMs = 0;
      for (const gate of Object.values(gates)) gate.open();
      if (!server.listening) await once(server.listen(port, '127.0.0.1'), 'listening');
    },
    async refuse() {
      if (server.listening) {
        const closed = once(server, 'close');
        server.close();
        cut();
        await closed;
      }
    },
    cut,
    blackhole(...directions) {
      for (const direction of directions) gates[direction] = closedGate();
    },
    strand() {
      proxy.blackhole('toServer', 'toClient');
      gates = { toServer: openGate(), toClient: openGate() };
    },
    latency(milliseconds) {
      delayMs = milliseconds;
    },
  };
  open.push(proxy);
  return proxy;
}

interface Gate {
  readonly opened: Promise<void>;
  open(): void;
}
const openGate = (): Gate => ({ opened: Promise.resolve(), open: () => undefined });
function closedGate(): Gate {
  const { promise: opened, resolve: open } = Promise.withResolvers<void>();
  return { opened, open };
}

/** Below Linux's ephemeral range: a client that tries again a port there on which nobody listens can reach itself. */
async function listenSomewhere(server: Server): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const port = 15_000 + Math.floor(Math.random() * 4_000);
    const listening = await new Promise<boolean>((resolve) => {
      const failed = () => resolve(false);
      server.once('error', failed).listen(port, '127.0.0.1', () => {
        server.off('error', failed);
        resolve(true);
      });
    });
    if (listening) return port;
  }
  throw new Error('No free port between 15000 and 19000 on 127.0.0.1');
}
