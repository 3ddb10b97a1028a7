import type { ChannelModel } from 'amqplib';
import { type ConfirmingChannel, type Outcome, openConfirmingChannel, type Sending } from './confirms.ts';
import type { Logger } from './logger.ts';
import { persist } from './persist.ts';
import type { Supervisor } from './supervisor.ts';

export interface SenderOptions {
  readonly logger: Logger;
  /** Milliseconds that a message may wait for its confirm. Default 10,000. */
  readonly confirmTimeoutMs?: number;
  /** Most messages without a confirm at once. Default 1,000; more gained nothing in our measurements. */
  readonly window?: number;
}

/** Sends with confirms on a supervised connection, over as many channels as it takes. */
export interface Sender {
  /** Whether a message has a chance now: the channel is open and the broker does not block publishers. */
  readonly ready: boolean;
  /** Never rejects. */
  send(sending: Sending): Promise<Outcome>;
  /** Takes no more and resolves when all that is out has its outcome. The connection is its owner's to close. */
  close(): Promise<void>;
}

/** @param prepare declares on each new connection what messages are sent to, beside the exchanges. */
export function createSender(
  supervisor: Supervisor,
  { logger, confirmTimeoutMs = 10_000, window = 1_000 }: SenderOptions,
  prepare: (connection: ChannelModel) => Promise<void> = async () => undefined,
): Sender {
  const stop = new AbortController();
  let channel: ConfirmingChannel | undefined;

  // A blocked connection stays: it is the one on which the broker will say that the alarm is over.
  const onTimeout = (): void => {
    if (supervisor.state() !== 'blocked') supervisor.drop(`no confirm within ${confirmTimeoutMs} ms`);
  };
  const live = async (): Promise<void> => {
    const connection = await supervisor.connected();
    await prepare(connection);
    channel = await openConfirmingChannel(connection, { window, confirmTimeoutMs, onTimeout });
    const failure = await channel.ended;
    channel = undefined;
    if (failure !== undefined) throw failure;
  };
  void persist(live, stop.signal, (error) => {
    logger.warn({}, `opening the publishing channel again: ${error instanceof Error ? error.message : String(error)}`);
  });

  return {
    get ready() {
      return channel !== undefined && !stop.signal.aborted && supervisor.state() === 'connected';
    },
    send(sending) {
      if (stop.signal.aborted) return unknown('the publisher is closed');
      if (supervisor.state() === 'blocked') return unknown('the broker blocks publishers: memory or disk alarm');
      return channel?.send(sending) ?? unknown('no connection to the broker');
    },
    async close() {
      stop.abort();
      await channel?.drained();
    },
  };
}

const unknown = (reason: string): Promise<Outcome> => Promise.resolve({ kind: 'unknown', reason });
