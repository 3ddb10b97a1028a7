import { append, fold, load, loadForUpdate, readEvents, type Stream, VersionConflictError } from '@oncebox/event-store';
import { createPool, type Pool, transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { deposited, doubled, type Ledger, type LedgerEvent, ledger, withSnapshots } from '../support/ledger.ts';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';
import { seeded } from '../support/seeded.ts';

let schemas: TestSchemas;
let pool: Pool;
beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  pool = createPool(schemas.shop.url, { connections: 8 });
});
afterAll(async () => {
  await pool?.end();
  await schemas?.drop();
});

const nothing = (id: string): Stream<Ledger> => ({ id, version: 0, state: ledger.initial });

/** Appends in a transaction of its own. */
const add = (stream: Stream<Ledger>, events: readonly LedgerEvent[], aggregate = ledger) =>
  transaction(pool, (tx) => append(tx, aggregate, stream, events));

const eventsOf = async (id: string) => (await readEvents(pool, ledger, id)).map(({ type, version }) => [version, type]);
const snapshotsOf = async (id: string): Promise<number[]> => {
  const [rows] = await pool.query<RowDataPacket[]>('SELECT version FROM snapshots WHERE stream_id = ?', [id]);
  return rows.map((row) => Number(row['version']));
};

describe('a stream', () => {
  it('holds its events in the order in which they were appended, with when and why', async () => {
    const id = uuidv7();
    const lineage = { correlationId: 'c', causationId: 'm' };
    const first = await transaction(pool, (tx) =>
      append(tx, ledger, nothing(id), [deposited(5), doubled, deposited(1)], lineage),
    );
    await add(first, [doubled]);
    const events = await readEvents(pool, ledger, id);
    expect(events.map(({ version, type, data }) => ({ version, type, data }))).toEqual([
      { version: 1, type: 'Deposited', data: { amount: 5 } },
      { version: 2, type: 'Doubled', data: {} },
      { version: 3, type: 'Deposited', data: { amount: 1 } },
      { version: 4, type: 'Doubled', data: {} },
    ]);
    expect(events.map((event) => event.lineage)).toEqual([lineage, lineage, lineage, {}]);
    expect(await load(pool, ledger, id)).toMatchObject({
      version: 4,
      state: { balance: 22, trail: ' 1+5 2*2 3+1 4*2' },
    });
  });

  it('is told by its id, byte for byte', async () => {
    const stem = uuidv7();
    const ids = [stem, `${stem} `, `${stem}'`, `${stem}\\`, `${stem}' OR 1=1 -- `];
    const aggregate = withSnapshots(1);
    for (const [index, id] of ids.entries()) await add(nothing(id), [deposited(index + 1)], aggregate);
    for (const [index, id] of ids.entries()) {
      expect(await load(pool, aggregate, id)).toMatchObject({ id, version: 1, state: { balance: index + 1 } });
      const locked = await transaction(pool, (tx) => loadForUpdate(tx, ledger, id));
      expect(await eventsOf(id)).toEqual([[1, 'Deposited']]);
      await add(locked, [doubled], aggregate);
      expect((await load(pool, aggregate, id)).state.balance).toBe(2 * (index + 1));
    }
  });

  it('has version 0 and the initial state before its first event', async () => {
    const id = uuidv7();
    expect(await load(pool, ledger, id)).toEqual(nothing(id));
  });

  it('takes none of the events of a transaction that is rolled back', async () => {
    const id = uuidv7();
    const work = transaction(pool, async (tx) => {
      await append(tx, withSnapshots(1), nothing(id), [doubled, doubled]);
      throw new Error('no');
    });
    await expect(work).rejects.toThrow('no');
    expect(await load(pool, ledger, id)).toEqual(nothing(id));
    expect(await snapshotsOf(id)).toEqual([]);
  });

  it('refuses a pool, whose rows would not be atomic with anything', async () => {
    // @ts-expect-error a pool is no transaction
    await expect(append(pool, ledger, nothing(uuidv7()), [doubled])).rejects.toMatchObject({
      code: 'ONCEBOX_NOT_A_TRANSACTION',
    });
  });

  it('refuses an event that could not be read again, and writes none of those beside it', async () => {
    const id = uuidv7();
    await expect(add(nothing(id), [deposited(1), deposited(0.5)])).rejects.toMatchObject({
      code: 'ONCEBOX_INVALID_EVENT',
    });
    expect(await eventsOf(id)).toEqual([]);
  });

  it('says which stored event its parser does not accept', async () => {
    const id = uuidv7();
    await add(nothing(id), [deposited(1)]);
    await pool.query(`UPDATE events SET type = 'Withdrawn' WHERE stream_id = ?`, [id]);
    await expect(load(pool, ledger, id)).rejects.toMatchObject({ code: 'ONCEBOX_UNREADABLE_EVENT' });
  });
});

describe('the expected version', () => {
  it('of an older state is a conflict, which leaves the stream as it is', async () => {
    const stale = await add(nothing(uuidv7()), [deposited(1)]);
    await add(stale, [deposited(2)]);
    const late = add(stale, [doubled, doubled]);
    await expect(late).rejects.toBeInstanceOf(VersionConflictError);
    await expect(late).rejects.toMatchObject({ code: 'ONCEBOX_VERSION_CONFLICT', expectedVersion: 1 });
    expect(await load(pool, ledger, stale.id)).toMatchObject({ version: 2, state: { balance: 3 } });
  });

  it('of nothing is a conflict when the stream has begun, and that of a stream which has not', async () => {
    const id = uuidv7();
    await add(nothing(id), [doubled]);
    await expect(add(nothing(id), [doubled])).rejects.toBeInstanceOf(VersionConflictError);
    const never = { ...nothing(uuidv7()), version: 3 };
    await expect(add(never, [doubled])).rejects.toBeInstanceOf(VersionConflictError);
  });

  it('lets one of many at once through, at the beginning and later', async () => {
    const id = uuidv7();
    let stream = nothing(id);
    for (const round of [1, 2, 3]) {
      const from = stream;
      const outcomes = await Promise.allSettled(
        Array.from({ length: 8 }, (_, n) => add(from, [deposited(n), doubled])),
      );
      const lost = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason] : []));
      expect(lost).toHaveLength(7);
      for (const reason of lost) expect(reason).toBeInstanceOf(VersionConflictError);
      stream = await load(pool, ledger, id);
      expect(stream.version).toBe(round * 2);
    }
    expect((await eventsOf(id)).map(([version]) => version)).toEqual([1, 2, 3, 4, 5, 6]);
  });

  it('is no matter for those who load under the lock: all of them get through', async () => {
    const { id } = await add(nothing(uuidv7()), [deposited(1)]);
    const one = () =>
      transaction(pool, async (tx) => append(tx, ledger, await loadForUpdate(tx, ledger, id), [deposited(1)]));
    await Promise.all(Array.from({ length: 20 }, one));
    expect(await load(pool, ledger, id)).toMatchObject({ version: 21, state: { balance: 21 } });
  });
});

describe('a snapshot', () => {
  it('that was made, is missing, is of another shape or is not readable makes no difference', async () => {
    const aggregate = withSnapshots(3);
    const { id } = await add(nothing(uuidv7()), [deposited(1), deposited(2), doubled, deposited(4)], aggregate);
    expect(await snapshotsOf(id)).toEqual([4]);
    const replayed = await load(pool, ledger, id);
    expect(await load(pool, aggregate, id)).toEqual(replayed);
    await pool.query("UPDATE snapshots SET shape = 2, state = '{}' WHERE stream_id = ?", [id]);
    expect(await load(pool, aggregate, id)).toEqual(replayed);
    await pool.query('UPDATE snapshots SET shape = 1 WHERE stream_id = ?', [id]);
    expect(await load(pool, aggregate, id)).toEqual(replayed);
    await pool.query('DELETE FROM snapshots WHERE stream_id = ?', [id]);
    expect(await load(pool, aggregate, id)).toEqual(replayed);
  });

  it('is what a load begins with', async () => {
    const aggregate = withSnapshots(2);
    const { id } = await add(nothing(uuidv7()), [deposited(1), deposited(2)], aggregate);
    await pool.query('DELETE FROM events WHERE stream_id = ?', [id]);
    expect(await load(pool, aggregate, id)).toMatchObject({ version: 2, state: { balance: 3 } });
  });
});

describe('live state, a replay from zero, and a replay from any snapshot', () => {
  it.each([1, 2, 3, 4, 5, 6, 7, 8])('are the same for random histories, seed %i', async (seed) => {
    const random = seeded(seed);
    const below = (most: number) => Math.floor(random() * most);
    const aggregate = withSnapshots(1 + below(5));
    let live = nothing(uuidv7());
    const states = [live];
    const snapshots: Stream<Ledger>[] = [];
    for (let step = 0; step < 12; step += 1) {
      const events = Array.from({ length: 1 + below(4) }, () => (below(3) === 0 ? doubled : deposited(below(1_000))));
      live = await add(live, events, aggregate);
      states.push(live);
      // Its own load, through whichever snapshot there is now.
      const loaded = await load(pool, aggregate, live.id);
      expect(loaded).toEqual(live);
      const [version] = await snapshotsOf(live.id);
      if (version !== undefined && snapshots.at(-1)?.version !== version) {
        const [rows] = await pool.query<RowDataPacket[]>('SELECT state FROM snapshots WHERE stream_id = ?', [live.id]);
        snapshots.push({ id: live.id, version, state: JSON.parse(String(rows[0]?.['state'])) });
      }
    }
    const events = await readEvents(pool, ledger, live.id);
    for (const state of states) expect(fold(ledger, live.id, events.slice(0, state.version))).toEqual(state);
    expect(snapshots.length).toBeGreaterThan(1);
    for (const snapshot of snapshots) {
      expect(fold(ledger, live.id, events.slice(snapshot.version), snapshot)).toEqual(live);
    }
  });
});
