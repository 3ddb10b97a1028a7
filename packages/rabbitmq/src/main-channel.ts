import type { ChannelModel } from 'amqplib';
import type { Apart } from './apart.ts';
import { watchChannelLimit } from './channel-limit.ts';
import { type ConfirmingChannel, type Cut, giveUp, type OnCut, type Unsettled } from './confirms.ts';
import { BrokerError } from './errors.ts';
import type { Logger } from './logger.ts';
import { persist } from './persist.ts';
import type { Supervisor } from './supervisor.ts';

export interface MainChannelOptions {
  readonly supervisor: Pick<Supervisor, 'connected'>;
  readonly prepare: (connection: ChannelModel) => Promise<void>;
  readonly openOn: (connection: ChannelModel, onCut: OnCut) => Promise<ConfirmingChannel>;
  /** Decides about the messages that were in flight when the broker closed the channel. */
  readonly apart: Pick<Apart, 'accuse' | 'beAlone' | 'examine' | 'turn'>;
  /** Sends a message that was held, on this channel or apart. */
  readonly route: (message: Unsettled) => void;
  readonly logger: Logger;
  readonly stop: AbortSignal;
}

/** The channel on which all messages are sent that need no channel apart. */
export interface MainChannel {
  /** Whether the channel is open, or is being opened again because of a message. */
  readonly canSend: boolean;
  /** Sends a message, or holds it while the channel is opened again because of another one. */
  push(message: Unsettled): void;
  /** Opens one more channel on the same connection. */
  openBeside(onCut: OnCut): Promise<ConfirmingChannel>;
  /** @returns the messages that are held. Call it after `stop` was aborted. */
  takeHeld(): readonly Unsettled[];
  /** Resolves when every message on the channel has its outcome. */
  drained(): Promise<void>;
}

/** Keeps the channel open until `stop` is aborted. */
export function keepMainChannel(options: MainChannelOptions): MainChannel {
  const { supervisor, prepare, openOn, apart, route, logger, stop } = options;
  let current: { readonly connection: ChannelModel; readonly isLimit: (error: unknown) => boolean } | undefined;
  let channel: ConfirmingChannel | undefined;
  /** Waits for the next channel while the broker has closed the last one because of a message. */
  let held: Unsettled[] | undefined;

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
      if (!stop.aborted) held = [...unsent];
      apart.examine(stop.aborted ? [...sent, ...unsent] : sent);
    }
  };

  const takeHeld = (): readonly Unsettled[] => {
    const taken = held ?? [];
    held = undefined;
    return taken;
  };
  const release = (): void => takeHeld().forEach(route);

  const live = async (): Promise<void> => {
    const connection = await supervisor.connected();
    const isLimit = watchChannelLimit(connection);
    current = { connection, isLimit };
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
      // The channel that is open beside may be the last one that is allowed.
      if (held !== undefined && isLimit(error)) apart.beAlone();
      throw error;
    } finally {
      if (!stop.aborted) current = undefined; // what was in flight may yet be tried
      release();
    }
  };
  void persist(live, stop, (error) => {
    logger.warn({}, `opening the publishing channel again: ${error instanceof Error ? error.message : String(error)}`);
  });

  return {
    get canSend() {
      return channel !== undefined || held !== undefined;
    },
    push(message) {
      if (held !== undefined) held.push(message);
      else if (channel !== undefined) channel.push(message);
      else message.settle({ kind: 'unknown', reason: 'no connection to the broker' });
    },
    async openBeside(onEnd) {
      if (current === undefined) throw new BrokerError('ONCEBOX_BROKER_LOST', 'no connection to the broker');
      const { connection, isLimit } = current;
      try {
        return await openOn(connection, onEnd);
      } catch (error) {
        if (isLimit(error)) apart.beAlone();
        throw error;
      }
    },
    takeHeld,
    drained: async () => await channel?.drained(),
  };
}
