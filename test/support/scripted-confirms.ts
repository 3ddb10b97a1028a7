import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { onTestFinished } from 'vitest';

/** A way to the broker on which the test decides how the first few messages of a channel are confirmed. */
export interface ScriptedConfirms {
  readonly url: string;
  /** Resolves when the broker has confirmed them all, of which the client has not heard. */
  readonly confirmed: Promise<void>;
  /** What the client hears instead: of one message, by its place from 1, or of all up to it. */
  say(what: 'ack' | 'nack', tag: number, upTo?: 'multiple'): void;
}

const METHOD = 1;
const [BASIC, ACK, NACK] = [60, 80, 120];

/** A broker confirms out of order and for many as it pleases, which no test can make it do. Everything but these confirms passes as it is. */
export async function scriptConfirms(brokerUrl: string, count: number): Promise<ScriptedConfirms> {
  const url = new URL(brokerUrl);
  const { hostname, port } = url;
  const { promise: confirmed, resolve } = Promise.withResolvers<void>();
  const left = new Set(Array.from({ length: count }, (_, index) => index + 1));
  let publishing: { client: Socket; channel: number } | undefined;

  const isHeldBack = (client: Socket, frame: Buffer): boolean => {
    if (frame[0] !== METHOD || frame.readUInt16BE(7) !== BASIC || frame.readUInt16BE(9) !== ACK) return false;
    const tag = Number(frame.readBigUInt64BE(11));
    if (tag > count) return false;
    publishing = { client, channel: frame.readUInt16BE(1) };
    for (const each of left) if (each === tag || (frame[19] === 1 && each < tag)) left.delete(each);
    if (left.size === 0) resolve();
    return true;
  };

  const proxy = createServer((client) => {
    const broker = connect(Number(port), hostname);
    let rest = Buffer.alloc(0);
    client.pipe(broker);
    broker.on('data', (data) => {
      rest = Buffer.concat([rest, data]);
      // Type, channel, size, payload, end mark.
      while (rest.length >= 7 && rest.length >= rest.readUInt32BE(3) + 8) {
        const frame = rest.subarray(0, rest.readUInt32BE(3) + 8);
        rest = rest.subarray(frame.length);
        if (!isHeldBack(client, frame)) client.write(frame);
      }
    });
    for (const socket of [client, broker]) {
      socket.on('error', () => undefined).on('close', () => [client, broker].map((each) => each.destroy()));
    }
  });
  await once(proxy.listen(0, '127.0.0.1'), 'listening');
  onTestFinished(() => void proxy.close());
  const address = proxy.address();
  if (address === null || typeof address === 'string') throw new Error('The proxy does not listen on a port');
  url.host = `127.0.0.1:${address.port}`;
  return {
    url: url.href,
    confirmed,
    say(what, tag, upTo) {
      if (publishing === undefined) throw new Error('Nothing was published yet');
      const frame = Buffer.alloc(21);
      frame[0] = METHOD;
      frame.writeUInt16BE(publishing.channel, 1);
      frame.writeUInt32BE(13, 3);
      frame.writeUInt16BE(BASIC, 7);
      frame.writeUInt16BE(what === 'ack' ? ACK : NACK, 9);
      frame.writeBigUInt64BE(BigInt(tag), 11);
      frame[19] = upTo === undefined ? 0 : 1;
      frame[20] = 0xce;
      publishing.client.write(frame);
    },
  };
}
