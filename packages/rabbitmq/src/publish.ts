import { Writable } from 'node:stream';
import type { ConfirmChannel } from 'amqplib';
import type { Sending } from './confirms.ts';
import { END_MARK, encodeHead, type FrameLimits, framesOf, plainBytes } from './frames.ts';

/** A channel as one sends on it: in the order of the calls, which is that of the delivery tags. */
export interface Outbound {
  /** False while the next message should wait for the channel's `drain`. */
  readonly writable: boolean;
  /**
   * @throws what amqplib throws on what it cannot encode. Nothing was sent then. On a channel that
   * has closed nothing is sent either.
   */
  publish(sending: Sending): void;
}

const CHUNK_BYTES = 64 * 1024;
/**
 * A chunk with less left is let go: the rest of one is still good for the next turn's few messages.
 */
const WORTH_KEEPING_BYTES = 8 * 1024;

/**
 * `channel.publish` at a fraction of its cost: what is sent in a turn of the loop is encoded side
 * by side into one buffer, which leaves in one write. With amqplib each message is some buffers of
 * its own, a write with Nagle off, and so a segment at which the broker wakes.
 *
 * What is larger goes frame by frame, as do properties that are bytes already. What is neither goes
 * by amqplib's `publish`, and so does everything once amqplib keeps what its channels write to
 * elsewhere: slower, and just as right.
 */
export function outboundOf(channel: ConfirmChannel): Outbound {
  const wire = wireOf(channel);
  let writable = true;
  let chunk = Buffer.allocUnsafeSlow(0);
  let filled = 0;
  let scheduled = false;

  channel.on('drain', () => {
    writable = true;
  });

  function flush(): void {
    if (filled === 0 || wire === undefined) return;
    const full = chunk.subarray(0, filled);
    chunk = chunk.subarray(chunk.length - filled < WORTH_KEEPING_BYTES ? chunk.length : filled);
    filled = 0;
    // Not once the channel is closed: its close has settled all that was on the way as unknown.
    if (wire.stream.writable) writable = wire.stream.write(full) && writable;
  }

  function append(head: string, body: Buffer): void {
    const bytes = head.length + body.length + 1;
    if (filled + bytes > chunk.length) {
      flush();
      if (bytes > chunk.length) chunk = Buffer.allocUnsafeSlow(Math.max(bytes, CHUNK_BYTES));
    }
    filled += chunk.write(head, filled, 'latin1');
    filled += body.copy(chunk, filled);
    chunk[filled++] = END_MARK;
    if (scheduled) return;
    scheduled = true;
    // Not at once: a confirm lets the next messages of many keys go.
    process.nextTick(() => {
      scheduled = false;
      flush();
    });
  }

  return {
    get writable() {
      return writable;
    },
    publish(sending) {
      const head = wire === undefined || sending.list !== undefined ? undefined : encodeHead(wire, sending);
      if (head !== undefined) return append(head, sending.body);
      flush();
      const list = sending.list ?? plainBytes(sending.options);
      if (wire !== undefined && list !== undefined) {
        for (const frame of framesOf(wire, sending, list)) {
          if (wire.stream.writable) writable = wire.stream.write(frame) && writable;
        }
        return;
      }
      // False means that it was taken and that the next should wait; sending it again would double
      // it.
      const { exchange, routingKey, body, options } = sending;
      writable = channel.publish(exchange, routingKey, body, options) && writable;
    },
  };
}

/** What amqplib writes a channel's frames to: no part of its types. */
export function wireOf(channel: ConfirmChannel): (FrameLimits & { readonly stream: Writable }) | undefined {
  const { connection } = channel;
  const [number, channels, frameMax]: unknown[] = [
    Reflect.get(channel, 'ch'),
    Reflect.get(connection, 'channels'),
    Reflect.get(connection, 'frameMax'),
  ];
  if (typeof number !== 'number' || typeof frameMax !== 'number' || !Array.isArray(channels)) return undefined;
  const stream: unknown = Reflect.get(Object(channels[number]), 'buffer');
  return stream instanceof Writable ? { channel: number, frameMax, stream } : undefined;
}
