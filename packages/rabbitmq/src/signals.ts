import { channel } from 'node:diagnostics_channel';

/** What a consumer tells whoever subscribes through `node:diagnostics_channel`: by channel, the message. */
export interface ConsumerSignals {
  /** The acknowledgement is written to the connection; AMQP confirms none. */
  readonly 'oncebox:consumer:acked': {
    readonly consumer: string;
    /** Undefined for a message that came without one, which goes to the dead queue. */
    readonly messageId: string | undefined;
  };
}

/** Subscribers run at once, before the next statement of the caller. Costs a look-up while there is none. */
export function signal<Name extends keyof ConsumerSignals>(name: Name, message: ConsumerSignals[Name]): void {
  channel(name).publish(message);
}
