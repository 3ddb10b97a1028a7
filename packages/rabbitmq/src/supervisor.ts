import { type ChannelModel, connect } from 'amqplib';
import { keepBytes } from './bytes.ts';
import { BrokerError, reasonOf } from './errors.ts';
import type { Logger } from './logger.ts';
import { persist } from './persist.ts';
import { signal } from './signals.ts';

/**
 * `blocked`: the broker takes no messages on this connection, because of its memory or disk alarm.
 */
export type ConnectionState = 'connected' | 'connecting' | 'blocked' | 'closed';

export interface SupervisorOptions {
  /**
   * `amqp://user:password@host:port/vhost` of the nodes of one cluster, tried in turn; `amqps:` for
   * TLS with a verified certificate.
   */
  readonly urls: readonly string[];
  /** What the management page calls the connection. */
  readonly name: string;
  readonly logger: Logger;
}

/** Keeps one connection alive. What lives on it (channels, consumers) is its user's to rebuild. */
export interface Supervisor {
  state(): ConnectionState;
  /**
   * The live connection, at once or as soon as there is one.
   *
   * @throws BrokerError ONCEBOX_BROKER_CLOSED after close().
   */
  connected(): Promise<ChannelModel>;
  /** One more connection to the same broker. It is its user's to close, and to make again. */
  another(): Promise<ChannelModel>;
  /**
   * Cuts a connection that does not do its work, without a farewell that a dead peer would never
   * answer. A new one is made.
   */
  drop(reason: string): void;
  /** Ends for good: says farewell to the broker, and waits at most five seconds for its answer. */
  close(): Promise<void>;
}

const CONNECT_TIMEOUT_MS = 10_000;
const CLOSE_TIMEOUT_MS = 5_000;
const HEARTBEAT_SECONDS = 10;

/**
 * @throws BrokerError ONCEBOX_INVALID_BROKER_URL. Everything else it waits for: it may start before
 *   the broker does.
 */
export function superviseConnection({ urls, name, logger }: SupervisorOptions): Supervisor {
  const brokers = urls.map(parseUrl);
  const brokerOf = (attempt: number): Broker => {
    const broker = brokers[attempt % brokers.length];
    if (broker === undefined) throw new BrokerError('ONCEBOX_INVALID_BROKER_URL', 'At least one broker URL is needed');
    return broker;
  };
  brokerOf(0);
  const stop = new AbortController();
  let attempts = 0;
  let state: ConnectionState = 'closed';
  const become = (next: ConnectionState): void => {
    if (next === state) return;
    state = next;
    signal('oncebox:broker:connection', { connection: name, state });
  };
  become('connecting');
  let live: ChannelModel | undefined;
  let next = awaited<ChannelModel>();
  let cut: (reason: Error) => void = () => undefined;

  const lifetime = async (): Promise<void> => {
    const { url, address } = brokerOf(attempts++);
    const at = { broker: address, connection: name };
    const socket = new AbortController();
    let reason: Error | undefined;
    const ended = Promise.withResolvers<void>();
    cut = (error) => {
      reason ??= error;
      socket.abort();
      ended.resolve();
    };
    const timer = setTimeout(() => cut(lost('ETIMEDOUT')), CONNECT_TIMEOUT_MS);
    try {
      // net and tls destroy the socket when `signal` says so, which amqplib itself has no call for.
      const options = { noDelay: true, clientProperties: { connection_name: name }, signal: socket.signal };
      const connection = await connect(url, options);
      keepBytes(connection);
      connection.on('error', (error) => {
        reason ??= error;
      });
      connection.on('close', (error) => {
        reason ??= error;
        ended.resolve();
      });
      connection.on('blocked', (why) => {
        become('blocked');
        logger.warn(at, `the broker blocks publishers: ${why}`);
      });
      connection.on('unblocked', () => {
        become('connected');
        logger.info(at, 'the broker takes messages again');
      });
      // A connection that the broker closed in the same breath as it opened has had its `close`
      // before we could listen; asking for a channel tells a dead one from a live one. Its close is
      // never settled when the connection dies meanwhile.
      const asked = await connection.createChannel();
      await Promise.race([asked.close(), ended.promise.then(() => Promise.reject(reason))]);
      clearTimeout(timer);
      become('connected');
      live = connection;
      next.resolve(connection);
      logger.info(at, `connected to broker ${address}`);
      await ended.promise;
      if (!stop.signal.aborted) {
        logger.warn(at, `lost broker ${address}: ${reasonOf(reason)}`);
      }
    } catch (error) {
      if (!stop.signal.aborted) {
        logger.warn(at, `waiting for broker ${address}: ${reasonOf(reason ?? error)}`);
      }
    } finally {
      clearTimeout(timer);
      socket.abort(); // after a close too: amqplib only ends its side, and a dead peer never ends the other
      if (live !== undefined) next = awaited();
      live = undefined;
      become('connecting');
    }
  };

  const ended = persist(lifetime, stop.signal, () => undefined).finally(() => {
    become('closed');
    next.reject(new BrokerError('ONCEBOX_BROKER_CLOSED', 'The connection to the broker was closed by its own process'));
  });

  return {
    state: () => state,
    connected: () => next.promise,
    async another() {
      const { url } = brokerOf(attempts - 1);
      const clientProperties = { connection_name: `${name} apart` };
      const connection = await connect(url, { noDelay: true, timeout: CONNECT_TIMEOUT_MS, clientProperties });
      connection.on('error', () => undefined); // its channels tell of it
      return connection;
    },
    drop: (reason) => cut(lost(reason)),
    async close() {
      stop.abort();
      const hard = setTimeout(() => cut(lost('ETIMEDOUT')), live === undefined ? 0 : CLOSE_TIMEOUT_MS);
      // Not awaited, because amqplib never settles it when the socket dies meanwhile; it rejects
      // when the connection is gone.
      live?.close().catch(() => undefined);
      await ended;
      clearTimeout(hard);
    },
  };
}

const lost = (reason: string): BrokerError => new BrokerError('ONCEBOX_BROKER_LOST', reason);

/** A promise for somebody else to settle; it may be rejected while nobody waits for it. */
function awaited<T>(): PromiseWithResolvers<T> {
  const deferred = Promise.withResolvers<T>();
  deferred.promise.catch(() => undefined);
  return deferred;
}

interface Broker {
  readonly url: string;
  /** Host and port: all of a URL that may be logged. */
  readonly address: string;
}

function parseUrl(text: string): Broker {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^amqps?:$/.test(url.protocol) || url.hostname === '') {
    throw new BrokerError('ONCEBOX_INVALID_BROKER_URL', 'A broker URL must read amqp://user:password@host:port/vhost');
  }
  const address = `${url.hostname}:${url.port || (url.protocol === 'amqps:' ? '5671' : '5672')}`;
  // The server's own 60 s would take two minutes to notice a dead peer.
  if (!url.searchParams.has('heartbeat')) url.searchParams.set('heartbeat', String(HEARTBEAT_SECONDS));
  return { url: url.href, address };
}
