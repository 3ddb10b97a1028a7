import type { Received } from '@oncebox/message';
import { type Context, context, ROOT_CONTEXT } from '@opentelemetry/api';

/** Of messages whose handling begins later and elsewhere than where they were handed over: together with others. */
const contexts = new WeakMap<Received, Context>();

/** Remembers the context in which a message was handed over. Without tracing there is one context, and nothing to remember. */
export function keepContext(received: Received): void {
  const active = context.active();
  if (active !== ROOT_CONTEXT) contexts.set(received, active);
}

/** Runs what concerns one message in the context in which it was handed over, so that what it sends belongs to that message's span. */
export function inContextOf<T>(received: Received, work: () => Promise<T>): Promise<T> {
  const kept = contexts.get(received);
  return kept === undefined ? work() : context.with(kept, work);
}

/** Runs what concerns several messages in none of their contexts. */
export const inNoContext = (work: () => void): void => context.with(ROOT_CONTEXT, work);
