import { EVENTS_EXCHANGE } from '@oncebox/message';
import { type ChannelModel, IllegalOperationError, type Options } from 'amqplib';
import { outboundOf } from './publish.ts';
import { declareExchanges } from './topology.ts';

/**
 * What became of a message. `returned`, `nacked`: the broker could not route or refused this one. `unsendable`: it can never be
 * sent as it is. `unknown`: an outage (channel or connection gone, broker blocked, deadline past); it may have arrived or not.
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
  /** The properties and headers as bytes: of a copy, which takes those of its original along and not what amqplib makes of them. */
  readonly list?: Buffer;
}

export interface ConfirmingChannel {
  /** Settles with the broker's word, or as `unknown` when the channel ends first. Never rejects. */
  send(sending: Sending): Promise<Outcome>;
  /** Resolves when the channel has ended, with the error that ended it if the broker gave one. */
  readonly ended: Promise<Error | undefined>;
  /** Takes no more, and resolves when everything that is out has its outcome. */
  drained(): Promise<void>;
}

export interface ConfirmSettings {
  /** Most messages without a confirm at once; further ones wait their turn. */
  readonly window: number;
  /** How long the oldest unconfirmed message may wait before all of them count as unknown. */
  readonly confirmTimeoutMs: number;
  /** Called after such a time-out: the connection may be dead without knowing. */
  readonly onTimeout: () => void;
}

type Settle = (outcome: Outcome) => void;

/**
 * What has to be known of a message until its confirm. Not the message itself: thousands are out at once, and all that they hold on to
 * outlives two collections of garbage and becomes old, which is what makes garbage dear.
 */
interface Entry {
  readonly exchange: string;
  readonly routingKey: string;
  readonly messageId: string | undefined;
  readonly bytes: number;
  readonly sentAt: number;
  readonly settle: Settle;
  /** Why the broker handed it back. The return comes before the ack, and the ack then says only that it was dealt with. */
  returned?: string;
}

/** Opens a channel in confirm mode. All state belongs to this one channel: a delivery tag means nothing on the next. */
export async function openConfirmingChannel(
  connection: ChannelModel,
  { window, confirmTimeoutMs, onTimeout }: ConfirmSettings,
): Promise<ConfirmingChannel> {
  const channel = await connection.createConfirmChannel();
  const outbound = outboundOf(channel);
  const unconfirmed = new Map<number, Entry>(); // by delivery tag; insertion order is the order of sending
  let waiting: { readonly sending: Sending; readonly settle: Settle }[] = [];
  let lastTag = 0;
  let open = true;
  let failure: Error | undefined;
  let deadline: NodeJS.Timeout | undefined;
  const ended = Promise.withResolvers<Error | undefined>();
  let draining = false;
  const drained = Promise.withResolvers<void>();
  const noteDrained = (): void => {
    if (draining && unconfirmed.size === 0 && waiting.length === 0) drained.resolve();
  };

  const settleAll = (outcomeOf: (message: Blamed) => Outcome): void => {
    const [sent, unsent] = [[...unconfirmed.values()], waiting];
    unconfirmed.clear();
    waiting = [];
    for (const entry of sent) entry.settle(outcomeOf(entry));
    for (const { sending, settle } of unsent)
      settle(outcomeOf({ exchange: sending.exchange, bytes: sending.body.length }));
    noteDrained();
  };

  // One timer for the oldest rather than one for each: all have the same patience, so none is due before the oldest.
  const watch = (): void => {
    const oldest = unconfirmed.values().next().value;
    deadline = undefined;
    if (oldest === undefined) return;
    const left = oldest.sentAt + confirmTimeoutMs - performance.now();
    if (left > 0) {
      deadline = setTimeout(watch, left);
      return;
    }
    settleAll(() => ({ kind: 'unknown', reason: `no confirm from the broker within ${confirmTimeoutMs} ms` }));
    onTimeout();
  };

  const pump = (): void => {
    while (open && outbound.writable && unconfirmed.size < window) {
      const next = waiting.shift();
      if (next === undefined) return;
      const { sending, settle } = next;
      const { exchange, routingKey, body, options } = sending;
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
      const { messageId } = options;
      const sentAt = performance.now();
      unconfirmed.set(++lastTag, { exchange, routingKey, messageId, bytes: body.length, sentAt, settle });
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
    // Two consumers may send copies of one message at the same time, so its id alone does not tell which one came back.
    for (const entry of unconfirmed.values()) {
      const { exchange, routingKey, messageId } = entry;
      if (messageId !== properties.messageId) continue;
      if (exchange !== fields.exchange || routingKey !== fields.routingKey) continue;
      entry.returned = `no queue is bound to exchange ${JSON.stringify(exchange)} for ${JSON.stringify(routingKey)}`;
    }
  });
  channel.on('drain', pump);
  channel.on('error', (error) => {
    failure = error;
  });
  channel.on('close', () => {
    open = false;
    clearTimeout(deadline);
    settleAll((message) => blame(message, failure));
    ended.resolve(failure);
  });
  await declareExchanges(channel);

  return {
    send: (sending) =>
      new Promise((settle) => {
        if (!open || draining) return settle({ kind: 'unknown', reason: 'the channel to the broker is closed' });
        waiting.push({ sending, settle });
        pump();
      }),
    ended: ended.promise,
    drained: () => {
      draining = true;
      noteDrained();
      return drained.promise;
    },
  };
}

type Blamed = Pick<Entry, 'exchange' | 'bytes'>;

/**
 * What a closed channel means for one message that was out on it. The broker closes the channel of all for the fault of one,
 * so a message that is at fault must be told from the others: tried again with them each time, it would stop them for ever.
 */
function blame({ exchange, bytes }: Blamed, failure: (Error & { code?: unknown }) | undefined): Outcome {
  const text = failure?.message ?? 'the connection to the broker was lost';
  // No such exchange, or no right to write there. Our own exchange is declared again with the next channel.
  const refusesExchange = failure?.code === 404 || failure?.code === 403;
  const name = exchange === '' ? 'amq.default' : exchange;
  if (refusesExchange && exchange !== EVENTS_EXCHANGE && text.includes(`exchange '${name}'`)) {
    return { kind: 'returned', reason: text };
  }
  if (failure?.code === 406 && text.includes(`message size ${bytes} is larger`)) {
    return { kind: 'unsendable', reason: text };
  }
  return { kind: 'unknown', reason: text };
}
