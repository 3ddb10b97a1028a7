import { type ChannelModel, IllegalOperationError, type Options } from 'amqplib';
import { outboundOf } from './publish.ts';
import { declareExchanges } from './topology.ts';

/**
 * What became of a message. `returned`, `nacked`: the broker could not route or refused this one.
 * `unsendable`: it can never be sent as it is. `unknown`: an outage (channel or connection gone,
 * broker blocked, deadline past); it may have arrived or not.
 */
export type Outcome =
  | { readonly kind: 'confirmed' }
  | { readonly kind: 'returned' | 'nacked' | 'unsendable' | 'unknown'; readonly reason: string };

/** A message as it goes into a `basic.publish`. */
export interface Sending {
  readonly exchange: string;
  readonly routingKey: string;
  readonly body: Buffer;
  /** Properties, headers and `mandatory`. */
  readonly options: Omit<Options.Publish, 'CC' | 'BCC' | 'expiration' | 'deliveryMode'>;
  /**
   * The properties and headers as bytes: of a copy, which takes those of its original along and not
   * what amqplib makes of them.
   */
  readonly list?: Buffer;
}

/** A message whose outcome somebody waits for. */
export interface Unsettled {
  readonly sending: Sending;
  readonly settle: (outcome: Outcome) => void;
}

/** The end of a channel that had messages without an outcome. */
export interface Cut {
  readonly failure: (Error & { code?: unknown }) | undefined;
  /**
   * What the broker closed with an error of AMQP, as it does for the fault of one message.
   * Undefined for an outage: a lost connection, a broker that stops, an operator who closes
   * connections.
   */
  readonly closed: 'channel' | 'connection' | undefined;
  /** Without a confirm, in the order of sending: the one at fault is among them. */
  readonly sent: readonly Unsettled[];
  /** Not sent yet. */
  readonly unsent: readonly Unsettled[];
}

/** Is given what has no outcome when a channel ends. */
export type OnCut = (cut: Cut) => void;

export interface ConfirmingChannel {
  /** Settles with the broker's word, or as `unknown` when the channel ends first. Never rejects. */
  send(sending: Sending): Promise<Outcome>;
  /** The same for a message that somebody waits for already. */
  push(message: Unsettled): void;
  /** Resolves when the channel has ended, with the error that ended it if the broker gave one. */
  readonly ended: Promise<Error | undefined>;
  /** Takes no more, and resolves when everything that is out has its outcome. */
  drained(): Promise<void>;
  /** Does not wait for what is out: call `drained` before. */
  close(): void;
}

interface ConfirmSettings {
  /** Most messages without a confirm at once; further ones wait their turn. */
  readonly window: number;
  /** How long the oldest unconfirmed message may wait before all of them count as unknown. */
  readonly confirmTimeoutMs: number;
  /** Called after such a time-out: the connection may be dead without knowing. */
  readonly onTimeout: () => void;
  /** Default: what has no outcome is `unknown`. */
  readonly onCut?: OnCut;
}

interface Entry extends Unsettled {
  readonly sentAt: number;
  /**
   * Why the broker handed it back. The return comes before the ack, and the ack then says only that
   * it was dealt with.
   */
  returned?: string;
}

/**
 * Opens a channel in confirm mode. All state belongs to this one channel: a delivery tag means
 * nothing on the next.
 */
export async function openConfirmingChannel(
  connection: ChannelModel,
  { window, confirmTimeoutMs, onTimeout, onCut = giveUp }: ConfirmSettings,
): Promise<ConfirmingChannel> {
  const channel = await connection.createConfirmChannel();
  const outbound = outboundOf(channel);
  const unconfirmed = new Map<number, Entry>(); // by delivery tag; insertion order is the order of sending
  let waiting: Unsettled[] = [];
  let lastTag = 0;
  let open = true;
  let failure: Error | undefined;
  let connectionFailure: Error | undefined;
  let deadline: NodeJS.Timeout | undefined;
  const ended = Promise.withResolvers<Error | undefined>();
  let draining = false;
  const drained = Promise.withResolvers<void>();
  const noteDrained = (): void => {
    if (draining && unconfirmed.size === 0 && waiting.length === 0) drained.resolve();
  };

  /** Takes all that has no outcome out of here. */
  const takeAll = () => {
    const taken = { sent: [...unconfirmed.values()], unsent: waiting };
    unconfirmed.clear();
    waiting = [];
    return taken;
  };

  // One timer for the oldest rather than one for each: all have the same patience, so none is due
  // before the oldest.
  const watch = (): void => {
    const oldest = unconfirmed.values().next().value;
    deadline = undefined;
    if (oldest === undefined) return;
    const left = oldest.sentAt + confirmTimeoutMs - performance.now();
    if (left > 0) {
      deadline = setTimeout(watch, left);
      return;
    }
    settleAll(takeAll(), `no confirm from the broker within ${confirmTimeoutMs} ms`);
    noteDrained();
    onTimeout();
  };

  const pump = (): void => {
    while (open && outbound.writable && unconfirmed.size < window) {
      const next = waiting.shift();
      if (next === undefined) return;
      const { sending, settle } = next;
      try {
        outbound.publish(sending);
      } catch (error) {
        // What it throws on was not sent and has used no delivery tag.
        settle(
          error instanceof IllegalOperationError
            ? { kind: 'unknown', reason: 'the channel is closing' }
            : { kind: 'unsendable', reason: error instanceof Error ? error.message : String(error) },
        );
        continue;
      }
      unconfirmed.set(++lastTag, { sending, settle, sentAt: performance.now() });
      deadline ??= setTimeout(watch, confirmTimeoutMs);
    }
  };

  const onConfirm = (tag: number, multiple: boolean, outcome: Outcome): void => {
    for (const each of multiple ? unconfirmed.keys() : [tag]) {
      if (each > tag) break;
      const entry = unconfirmed.get(each);
      unconfirmed.delete(each);
      entry?.settle(entry.returned === undefined ? outcome : { kind: 'returned', reason: entry.returned });
    }
    pump();
    noteDrained();
  };

  channel.on('ack', ({ deliveryTag, multiple }) => onConfirm(deliveryTag, multiple, { kind: 'confirmed' }));
  channel.on('nack', ({ deliveryTag, multiple }) =>
    onConfirm(deliveryTag, multiple, {
      kind: 'nacked',
      reason: 'the broker refused it: a queue is full or unavailable',
    }),
  );
  channel.on('return', ({ fields, properties }) => {
    // Two consumers may send copies of one message at the same time, so its id alone does not tell
    // which one came back.
    for (const entry of unconfirmed.values()) {
      const { exchange, routingKey, options } = entry.sending;
      if (options.messageId !== properties.messageId) continue;
      if (exchange !== fields.exchange || routingKey !== fields.routingKey) continue;
      entry.returned = `no queue is bound to exchange ${JSON.stringify(exchange)} for ${JSON.stringify(routingKey)}`;
    }
  });
  channel.on('drain', pump);
  channel.on('error', (error) => {
    failure = error;
  });
  const onConnectionError = (error: Error): void => {
    connectionFailure = error;
  };
  connection.setMaxListeners(0); // one for each channel that is open
  connection.on('error', onConnectionError);
  channel.on('close', () => {
    open = false;
    clearTimeout(deadline);
    connection.off('error', onConnectionError);
    const { sent, unsent } = takeAll();
    for (const { settle, returned } of sent) if (returned !== undefined) settle({ kind: 'returned', reason: returned });
    const unknown = sent.filter(({ returned }) => returned === undefined);
    const closed = failure !== undefined ? 'channel' : isOfAmqp(connectionFailure) ? 'connection' : undefined;
    if (unknown.length + unsent.length > 0) {
      onCut({ failure: failure ?? connectionFailure, closed, sent: unknown, unsent });
    }
    noteDrained();
    ended.resolve(failure);
  });
  await declareExchanges(channel);

  const push = (message: Unsettled): void => {
    if (open && !draining) {
      waiting.push(message);
      pump();
    } else message.settle({ kind: 'unknown', reason: 'the channel to the broker is closed' });
  };
  return {
    send: (sending) => new Promise((settle) => push({ sending, settle })),
    push,
    ended: ended.promise,
    drained: () => {
      draining = true;
      noteDrained();
      return drained.promise;
    },
    close: () => void channel.close().catch(() => undefined), // it rejects when the channel is closed already
  };
}

/** The outcome of all of them is unknown. */
export function giveUp({ failure, sent, unsent }: Omit<Cut, 'closed'>): void {
  settleAll({ sent, unsent }, failure?.message ?? 'the connection to the broker was lost');
}

function settleAll({ sent, unsent }: Pick<Cut, 'sent' | 'unsent'>, reason: string): void {
  for (const { settle } of [...sent, ...unsent]) settle({ kind: 'unknown', reason });
}

/** An error of AMQP has a number; one of a socket has a name, or none. */
const isOfAmqp = (error: Error | undefined): boolean => typeof Reflect.get(Object(error), 'code') === 'number';
