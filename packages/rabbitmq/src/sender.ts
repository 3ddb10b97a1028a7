import type { ChannelModel } from 'amqplib';
import { createApart } from './apart.ts';
import {
  type ConfirmingChannel,
  type ConfirmSettings,
  type Cut,
  giveUp,
  type Outcome,
  openConfirmingChannel,
  type Sending,
  type Unsettled,
} from './confirms.ts';
import { BrokerError } from './errors.ts';
import type { Logger } from './logger.ts';
import { persist } from './persist.ts';
import type { Supervisor } from './supervisor.ts';

export interface SenderOptions {
  readonly logger: Logger;
  /** Milliseconds that a message may wait for its confirm. Default 10,000. */
  readonly confirmTimeoutMs?: number;
  /**
   * Most messages without a confirm at once. Default 1,000; more gained nothing in our
   * measurements.
   */
  readonly window?: number;
}

/** Sends with confirms on a supervised connection, over as many channels as it takes. */
export interface Sender {
  /**
   * Whether a message has a chance now: the channel is open and the broker does not block
   * publishers.
   */
  readonly ready: boolean;
  /** Never rejects. */
  send(sending: Sending): Promise<Outcome>;
  /**
   * Takes no more and resolves when all that is out has its outcome. The connection is its owner's
   * to close.
   */
  close(): Promise<void>;
}

/**
 * @param prepare declares on each new connection what messages are sent to, beside the exchanges.
 */
export function createSender(
  supervisor: Supervisor,
  { logger, confirmTimeoutMs = 10_000, window = 1_000 }: SenderOptions,
  prepare: (connection: ChannelModel) => Promise<void> = async () => undefined,
): Sender {
  const stop = new AbortController();
  let connection: ChannelModel | undefined;
  let channel: ConfirmingChannel | undefined;
  /**
   * What waits for the next channel while one is opened again because of a message. Nothing else
   * waits for one.
   */
  let held: Unsettled[] | undefined;

  // A blocked connection stays: it is the one on which the broker will say that the alarm is over.
  const onTimeout = (): void => {
    if (supervisor.state() !== 'blocked') supervisor.drop(`no confirm within ${confirmTimeoutMs} ms`);
  };

  const openOn = (on: ChannelModel, onCut: ConfirmSettings['onCut'], late = onTimeout): Promise<ConfirmingChannel> => {
    const settings = { window, confirmTimeoutMs, onTimeout: late, ...(onCut && { onCut }) };
    return inTime(openConfirmingChannel(on, settings), confirmTimeoutMs, late, (opened) => opened.close());
  };

  const apart = createApart({
    logger,
    route,
    plain,
    isConnected: () => supervisor.state() === 'connected',
    async openSpare(onCut) {
      if (connection === undefined) throw new BrokerError('ONCEBOX_BROKER_LOST', 'no connection to the broker');
      return await openOn(connection, onCut);
    },
    async openIsolated(onCut) {
      // A broker that can be reached at all is waited for: a failure after that is none of the
      // broker's.
      await inTime(supervisor.connected(), confirmTimeoutMs);
      const another = await supervisor.another();
      const end = (): void => void another.close().catch(() => undefined); // rejects when it is closed already
      try {
        const opened = await openOn(another, onCut, end);
        return { ...opened, close: end };
      } catch (error) {
        end();
        throw error;
      }
    },
  });

  /** Called before anything else learns that the channel is closed. */
  const onCut = (cut: Cut): void => {
    channel = undefined;
    const { closed, failure, sent, unsent } = cut;
    if (closed === undefined || sent.length === 0) {
      giveUp(cut);
    } else if (closed === 'connection') {
      giveUp({ failure, sent: [], unsent });
      apart.accuse(sent, failure);
    } else {
      logger.warn({}, `opening the publishing channel again: ${failure?.message}`);
      if (!stop.signal.aborted) held = [...unsent];
      apart.examine(stop.signal.aborted ? [...sent, ...unsent] : sent);
    }
  };

  const live = async (): Promise<void> => {
    connection = await supervisor.connected();
    try {
      await prepare(connection);
      do {
        await apart.turn();
        channel = await openOn(connection, onCut);
        release();
        const failure = await channel.ended;
        channel = undefined;
        if (held === undefined && failure !== undefined) throw failure;
      } while (held !== undefined);
    } catch (error) {
      if (held !== undefined) apart.beAlone(); // the other channel may have been the last one that is allowed
      throw error;
    } finally {
      if (!stop.signal.aborted) connection = undefined; // what was in flight may yet be tried
      release();
    }
  };
  void persist(live, stop.signal, (error) => {
    logger.warn({}, `opening the publishing channel again: ${error instanceof Error ? error.message : String(error)}`);
  });

  function release(): void {
    const waiting = held ?? [];
    held = undefined;
    for (const message of waiting) route(message);
  }

  function route(message: Unsettled): void {
    const canSend = held !== undefined || channel !== undefined;
    if (!canSend || !apart.takes(message)) plain(message);
  }

  function plain(message: Unsettled): void {
    if (held !== undefined) held.push(message);
    else if (channel !== undefined) channel.push(message);
    else message.settle({ kind: 'unknown', reason: 'no connection to the broker' });
  }

  return {
    get ready() {
      const canSend = channel !== undefined || held !== undefined;
      return canSend && !stop.signal.aborted && supervisor.state() === 'connected';
    },
    send(sending) {
      if (stop.signal.aborted) return unknown('the publisher is closed');
      if (supervisor.state() === 'blocked') return unknown('the broker blocks publishers: memory or disk alarm');
      return new Promise((settle) => route({ sending, settle }));
    },
    async close() {
      stop.abort();
      const left = held ?? [];
      held = undefined;
      if (left.length > 0) apart.examine(left);
      await apart.idle();
      await channel?.drained();
      await apart.idle();
    },
  };
}

const unknown = (reason: string): Promise<Outcome> => Promise.resolve({ kind: 'unknown', reason });

/**
 * Rejects when it takes longer, and then calls `onLate`; what comes after all goes to `discard`.
 */
async function inTime<T>(
  work: Promise<T>,
  milliseconds: number,
  onLate: () => void = () => undefined,
  discard: (result: T) => void = () => undefined,
): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    late.reject(new BrokerError('ONCEBOX_BROKER_LOST', `no answer from the broker within ${milliseconds} ms`));
    work.then(discard, () => undefined);
    onLate();
  }, milliseconds);
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
