import { Writable } from 'node:stream';
import type { ChannelModel } from 'amqplib';

/** By socket, as the channels of a connection share one: with a listener each, a channel that is opened again and again would leave them behind. */
const gathering = new WeakMap<Writable, () => void>();

/**
 * Lets what is written to a connection in one turn of the loop leave in one system call. amqplib writes each message by itself, and with Nagle
 * off each is a segment of its own: dear here, and dearer at the broker, which wakes for each.
 *
 * @returns to be called before writing. Does nothing once amqplib keeps its socket elsewhere: slower, and just as right.
 */
export function gatherWrites({ connection }: ChannelModel): () => void {
  const socket: unknown = Reflect.get(connection, 'stream');
  if (!(socket instanceof Writable)) return () => undefined;
  const known = gathering.get(socket);
  if (known !== undefined) return known;
  let corked = false;
  let again = false;
  const uncork = (): void => {
    socket.uncork();
    corked = again;
    again = false;
    if (!corked) return;
    // What was sent while it was corked is handed over in an immediate behind this one. In a drain that is every other turn.
    socket.cork();
    setImmediate(uncork);
  };
  const cork = (): void => {
    if (corked) {
      again = true;
      return;
    }
    corked = true;
    socket.cork();
    // amqplib hands its messages to the socket in an immediate that it asks for after us, so ours waits for one more.
    setImmediate(setImmediate, uncork);
  };
  // When the socket takes more, amqplib writes at once what had to wait.
  socket.prependListener('drain', cork);
  gathering.set(socket, cork);
  return cork;
}
