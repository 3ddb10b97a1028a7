import { subscribe } from 'node:diagnostics_channel';
import type { InboxSignals } from '@oncebox/inbox';
import type { RelaySignals } from '@oncebox/outbox';
import type { ConsumerSignals } from '@oncebox/rabbitmq';

type Signals = InboxSignals & RelaySignals & ConsumerSignals;

/** For the life of the process. `observe` runs in the middle of the work that it is told of. */
export function on<Name extends keyof Signals>(name: Name, observe: (message: Signals[Name]) => void): void {
  // A channel carries anything to the compiler. Whoever publishes on this one is held to the same type.
  subscribe(name, (message) => observe(message as Signals[Name]));
}
