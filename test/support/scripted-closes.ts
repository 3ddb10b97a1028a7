import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { onTestFinished } from 'vitest';

/**
 * A way to the broker that closes the connection of a message as a broker does which cannot bear
 * it.
 */
export interface ScriptedCloses {
  readonly url: string;
  /** How many connections were closed so. */
  readonly closed: number;
}

const [METHOD, BODY] = [1, 3];
const [CONNECTION, CLOSE] = [10, 50];

/**
 * No message of ours makes a real broker do it. Everything but a body with `mark` in it passes as
 * it is.
 */
export async function scriptCloses(brokerUrl: string, mark: string, code: number): Promise<ScriptedCloses> {
  const url = new URL(brokerUrl);
  const { hostname, port } = url;
  let closed = 0;

  const proxy = createServer((client) => {
    const broker = connect(Number(port), hostname);
    let rest = Buffer.alloc(0);
    let greeted = false;
    let isClosed = false;
    broker.on('data', (data) => void (isClosed || client.write(data)));
    client.on('data', (data) => {
      rest = Buffer.concat([rest, data]);
      if (!greeted && rest.length >= GREETING_BYTES) {
        greeted = true;
        broker.write(rest.subarray(0, GREETING_BYTES));
        rest = rest.subarray(GREETING_BYTES);
      }
      // Type, channel, size, payload, end mark.
      while (greeted && rest.length >= 7 && rest.length >= rest.readUInt32BE(3) + 8) {
        const frame = rest.subarray(0, rest.readUInt32BE(3) + 8);
        rest = rest.subarray(frame.length);
        if (isClosed) continue;
        if (frame[0] === BODY && frame.includes(mark)) {
          isClosed = true;
          closed += 1;
          client.write(closeFrame(code));
        } else broker.write(frame);
      }
    });
    for (const socket of [client, broker]) {
      socket.on('error', () => undefined).on('close', () => destroy(client, broker));
    }
  });
  await once(proxy.listen(0, '127.0.0.1'), 'listening');
  onTestFinished(() => void proxy.close());
  const address = proxy.address();
  if (address === null || typeof address === 'string') throw new Error('The proxy does not listen on a port');
  url.host = `127.0.0.1:${address.port}`;
  return {
    url: url.href,
    get closed() {
      return closed;
    },
  };
}

/** `AMQP` and its version. */
const GREETING_BYTES = 8;

function closeFrame(code: number): Buffer {
  const text = Buffer.from('INTERNAL_ERROR');
  const payload = Buffer.alloc(4 + 2 + 1 + text.length + 4);
  payload.writeUInt16BE(CONNECTION, 0);
  payload.writeUInt16BE(CLOSE, 2);
  payload.writeUInt16BE(code, 4);
  payload[6] = text.length;
  text.copy(payload, 7);
  const head = Buffer.alloc(7);
  head[0] = METHOD;
  head.writeUInt32BE(payload.length, 3);
  return Buffer.concat([head, payload, Buffer.from([0xce])]);
}

const destroy = (...sockets: Socket[]): void => {
  for (const socket of sockets) socket.destroy();
};
