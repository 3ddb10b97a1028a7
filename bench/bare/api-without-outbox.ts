import { outbox } from '@oncebox/outbox';

/** The api itself, but for the one call that writes the outbox row. */

Object.assign(outbox, { add: async () => undefined });
await import('../../apps/api/src/main.ts');
