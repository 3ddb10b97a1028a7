import type { Sending, Unsettled } from './confirms.ts';
import { forgetOldest, nameOf } from './destinations.ts';

/** Messages for which the broker may close a connection. */
export interface Suspects {
  /** Costs little: every message asks. */
  isDangerous(sending: Sending): boolean;
  /** @returns the messages that were in flight at an earlier end of a connection too. */
  accuse(messages: readonly Unsettled[]): { readonly again: Unsettled[]; readonly first: Unsettled[] };
  /** The broker has closed a connection on which the message was alone. */
  convict(sending: Sending): void;
  /** The broker has taken the message. */
  clear(sending: Sending): void;
}

export function createSuspects(): Suspects {
  /** These were in flight when the broker closed a connection with an error. */
  const accused = new Set<string>();
  const dangerous = new Set<string>();
  return {
    isDangerous: (sending) => dangerous.size > 0 && dangerous.has(idOf(sending)),
    accuse(messages) {
      const again = messages.filter(({ sending }) => accused.has(idOf(sending)));
      const first = messages.filter(({ sending }) => !accused.has(idOf(sending)));
      for (const { sending } of first) accused.add(idOf(sending));
      forgetOldest(accused);
      return { again, first };
    },
    convict(sending) {
      dangerous.add(idOf(sending));
      forgetOldest(dangerous);
    },
    clear: (sending) => void dangerous.delete(idOf(sending)),
  };
}

const idOf = (sending: Sending): string => `${sending.options.messageId} ${nameOf(sending)}`;
