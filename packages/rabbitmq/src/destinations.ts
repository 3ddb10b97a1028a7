import { COMMANDS_EXCHANGE, EVENTS_EXCHANGE } from '@oncebox/message';
import type { Sending, Unsettled } from './confirms.ts';

/**
 * An exchange, or an exchange with one routing key, of which it is not known that the broker takes
 * messages for it.
 */
export interface Doubt {
  /** Why the broker refused it last; undefined when it was not tried yet. */
  reason: string | undefined;
  /** On performance.now()'s clock. */
  triedAt: number;
  /** While one message is tried, the others for the same destination wait for its outcome. */
  waiting: Unsettled[] | undefined;
}

/**
 * Where a message can be sent together with others. The broker closes the channel of all for one
 * message that it refuses, so a destination is tried apart until a message has passed.
 */
export interface Destinations {
  /** Undefined for a destination that works. Costs little: every message asks. */
  doubtOf(sending: Sending): Doubt | undefined;
  /** A message for it has passed, so the broker refuses none for its sake. */
  prove(sending: Sending): void;
  /** A message for it may have been refused: the next one is tried apart. */
  suspect(sending: Sending): void;
  /** @returns whether this is news. */
  refuse(sending: Sending, code: 403 | 404, reason: string): boolean;
  /** Why the broker has refused this destination, if it has since that time. */
  refusedSince(sending: Sending, time: number): string | undefined;
}

/** Declared with every channel, or there with every broker. */
const OURS: ReadonlySet<string> = new Set(['', EVENTS_EXCHANGE, COMMANDS_EXCHANGE]);
/**
 * So many of each are remembered, the latest; a message for another one is tried apart once more.
 */
const MOST = 10_000;
/**
 * The broker's text says whether it refuses an exchange or one routing key, by its topic
 * permissions. Another text is taken for a key's: that blames no message for another. The names in
 * a text come later, and may hold anything.
 */
const OF_EXCHANGE = /"ACCESS_REFUSED - (cannot publish to internal exchange|(write )?access to exchange) /;
const OF_TOPIC = /"ACCESS_REFUSED - (write )?access to topic /;

export function createDestinations(): Destinations {
  const proven = new Set<string>();
  const exchanges = new Map<string, Doubt>();
  const keys = new Map<string, Doubt>();

  const find = (sending: Sending): Doubt | undefined =>
    (keys.size === 0 ? undefined : keys.get(nameOf(sending))) ?? exchanges.get(sending.exchange);
  const proveExchange = (exchange: string): void => {
    exchanges.delete(exchange);
    if (OURS.has(exchange)) return;
    proven.add(exchange);
    forgetOldest(proven);
  };
  const doubtIn = (doubts: Map<string, Doubt>, name: string): Doubt => {
    const known = doubts.get(name);
    if (known !== undefined) return known;
    const doubt: Doubt = { reason: undefined, triedAt: Number.NEGATIVE_INFINITY, waiting: undefined };
    doubts.set(name, doubt);
    forgetOldest(doubts);
    return doubt;
  };

  return {
    doubtOf(sending) {
      const { exchange } = sending;
      const doubt = find(sending);
      if (doubt !== undefined || OURS.has(exchange) || proven.has(exchange)) return doubt;
      return doubtIn(exchanges, exchange);
    },
    prove(sending) {
      proveExchange(sending.exchange);
      keys.delete(nameOf(sending));
    },
    suspect({ exchange }) {
      proven.delete(exchange);
    },
    refuse(sending, code, reason) {
      const { exchange } = sending;
      const isOfExchange = code === 404 || OF_EXCHANGE.test(reason);
      if (isOfExchange) proven.delete(exchange);
      else if (OF_TOPIC.test(reason)) proveExchange(exchange); // its rights are checked before those of a key
      const doubt = isOfExchange ? doubtIn(exchanges, exchange) : doubtIn(keys, nameOf(sending));
      const isNews = doubt.reason === undefined;
      doubt.reason = reason;
      doubt.triedAt = performance.now();
      return isNews;
    },
    refusedSince(sending, time) {
      const doubt = find(sending);
      return doubt !== undefined && doubt.triedAt >= time ? doubt.reason : undefined;
    },
  };
}

/** The length keeps two pairs apart that read the same. */
export const nameOf = ({ exchange, routingKey }: Sending): string => `${exchange.length} ${exchange}${routingKey}`;

/** Maps and sets keep the order in which their members came. */
export function forgetOldest(known: Map<string, unknown> | Set<string>): void {
  for (const oldest of known.keys()) {
    if (known.size <= MOST) return;
    known.delete(oldest);
  }
}
