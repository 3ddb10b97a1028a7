import { channel } from 'node:diagnostics_channel';
import type { ConnectionState } from './supervisor.ts';

/**
 * What a consumer tells whoever subscribes through `node:diagnostics_channel`: by channel, the
 * message.
 */
export interface ConsumerSignals {
  /** The acknowledgement is written to the connection; AMQP confirms none. */
  readonly 'oncebox:consumer:acked': {
    readonly consumer: string;
    /** Undefined for a message that came without one, which goes to the dead queue. */
    readonly messageId: string | undefined;
  };
  /** It is decided what becomes of a delivery, or of a message that was held, and done. */
  readonly 'oncebox:consumer:settled': SettledSignal;
  /**
   * A look at one of the consumer's queues, its dead queue and that for what is set aside too:
   * every five seconds while somebody subscribes.
   */
  readonly 'oncebox:consumer:depth': {
    readonly consumer: string;
    readonly queue: string;
    /**
     * That are ready; without those in somebody's hands, but for those of the dead queue that
     * cannot be kept yet.
     */
    readonly messages: number;
  };
  /** A connection has changed its state; each begins with `connecting`. */
  readonly 'oncebox:broker:connection': { readonly connection: string; readonly state: ConnectionState };
}

export interface SettledSignal {
  readonly consumer: string;
  /**
   * `retried`, `dead`: a copy is safe where it belongs; `held`: the same in the store of an ordered
   * consumer; `skipped`: history that its handler does not take.
   */
  readonly result: 'handled' | 'duplicate' | 'retried' | 'dead' | 'held' | 'skipped';
  /**
   * When the message was written into its outbox, by its database's clock; undefined where its
   * headers do not say, and of history.
   */
  readonly occurredAt: Date | undefined;
}

/**
 * Subscribers run at once, before the next statement of the caller. Costs a look-up while there is
 * none.
 */
export function signal<Name extends keyof ConsumerSignals>(name: Name, message: ConsumerSignals[Name]): void {
  channel(name).publish(message);
}

/** Whether a message is worth making. */
export const isHeard = (name: keyof ConsumerSignals): boolean => channel(name).hasSubscribers;
