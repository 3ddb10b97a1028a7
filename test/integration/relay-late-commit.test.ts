import { createPool, transaction } from '@oncebox/mysql';
import { outbox } from '@oncebox/outbox';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { add, newRelay, Step, schemas, seen, useRelays } from '../support/walks.ts';

useRelays();

/** Rows commit out of the order of `seq`; the order of a key holds all the same. */
describe('a row that commits below one that is published already', () => {
  // A look may begin where the last pass ended, or at the beginning: both come to meet the late row.
  it.each([0, 1])('goes out before the next row of its key, %i looks later', async (looks) => {
    const relay = newRelay();
    const other = createPool(schemas.shop.url, { connections: 1 });
    onTestFinished(() => other.end());
    const { promise: committing, resolve: commit } = Promise.withResolvers<void>();
    const { promise: begun, resolve: begin } = Promise.withResolvers<void>();
    const late = transaction(other, async (tx) => {
      await outbox.add(tx, Step.message({ walk: 'late', step: 1 }));
      begin();
      await committing;
      await outbox.add(tx, Step.message({ walk: 'late', step: 2 }));
    });
    await begun;
    // Other keys in every partition, between the late rows.
    await add(...Array.from({ length: 64 }, (_, n) => Step.message({ walk: `between${n}`, step: 1 })));
    await relay.runOnce();
    await vi.waitFor(() => expect(seen).toHaveLength(64), 20_000);
    for (let look = 0; look < looks; look += 1) await relay.runOnce();
    commit();
    await late;
    await vi.waitFor(async () => {
      await relay.runOnce();
      expect(seen).toHaveLength(66);
    }, 20_000);
    const payloads = seen.slice(64).map(({ content }) => JSON.parse(content.toString()));
    expect(payloads).toEqual([
      { walk: 'late', step: 1 },
      { walk: 'late', step: 2 },
    ]);
  });
});
