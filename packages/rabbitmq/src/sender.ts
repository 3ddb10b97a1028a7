import type { ChannelModel } from 'amqplib';
import { createApart } from './apart.ts';
import {
  type ConfirmingChannel,
  type OnCut,
  type Outcome,
  openConfirmingChannel,
  type Sending,
  type Unsettled,
} from './confirms.ts';
import { inTime } from './in-time.ts';
import type { Logger } from './logger.ts';
import { keepMainChannel } from './main-channel.ts';
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
  options: SenderOptions,
  prepare: (connection: ChannelModel) => Promise<void> = async () => undefined,
): Sender {
  const { logger } = options;
  const stop = new AbortController();
  const { openOn, openIsolated } = openingOf(supervisor, options);

  const apart = createApart({
    logger,
    route,
    plain: (message) => main.push(message),
    isConnected: () => supervisor.state() === 'connected',
    openSpare: (onCut) => main.openBeside(onCut),
    openIsolated,
  });
  const main = keepMainChannel({ supervisor, prepare, openOn, apart, route, logger, stop: stop.signal });

  function route(message: Unsettled): void {
    if (!main.canSend || !apart.takes(message)) main.push(message);
  }

  return {
    get ready() {
      return main.canSend && !stop.signal.aborted && supervisor.state() === 'connected';
    },
    send(sending) {
      if (stop.signal.aborted) return unknown('the publisher is closed');
      if (supervisor.state() === 'blocked') return unknown('the broker blocks publishers: memory or disk alarm');
      return new Promise((settle) => route({ sending, settle }));
    },
    async close() {
      stop.abort();
      const left = main.takeHeld();
      if (left.length > 0) apart.examine(left);
      await apart.idle();
      await main.drained();
      await apart.idle();
    },
  };
}

const unknown = (reason: string): Promise<Outcome> => Promise.resolve({ kind: 'unknown', reason });

interface Opening {
  openOn(connection: ChannelModel, onCut: OnCut): Promise<ConfirmingChannel>;
  /** Opens a channel on one more connection, which ends with the channel. */
  openIsolated(onCut: OnCut): Promise<ConfirmingChannel>;
}

function openingOf(
  supervisor: Supervisor,
  { confirmTimeoutMs = 10_000, window = 1_000 }: Omit<SenderOptions, 'logger'>,
): Opening {
  // A blocked connection stays: it is the one on which the broker will say that the alarm is over.
  const onTimeout = (): void => {
    if (supervisor.state() !== 'blocked') supervisor.drop(`no confirm within ${confirmTimeoutMs} ms`);
  };

  const open = (on: ChannelModel, onCut: OnCut, late: () => void): Promise<ConfirmingChannel> => {
    const opening = openConfirmingChannel(on, { window, confirmTimeoutMs, onTimeout: late, onCut });
    return inTime(opening, confirmTimeoutMs, late, (opened) => opened.close());
  };

  return {
    openOn: (connection, onCut) => open(connection, onCut, onTimeout),
    async openIsolated(onCut) {
      // A broker that can be reached at all is waited for: a failure after that is none of the
      // broker's.
      await inTime(supervisor.connected(), confirmTimeoutMs);
      const another = await supervisor.another();
      const end = (): void => void another.close().catch(() => undefined); // rejects when it is closed already
      try {
        return { ...(await open(another, onCut, end)), close: end };
      } catch (error) {
        end();
        throw error;
      }
    },
  };
}
