import { describe, expect, it } from 'vitest';
import { dispatch } from './dispatch.ts';
import type { Outcome, Publisher } from './publisher.ts';
import type { OutboxRow } from './row.ts';

const row = (seq: number, key: string, change: Partial<OutboxRow> = {}): OutboxRow => ({
  seq: String(seq),
  id: `id-${seq}`,
  partition_id: 0,
  aggregatetype: 'note',
  aggregateid: key,
  type: 'Noted',
  version: 1,
  payload: '{}',
  headers: null,
  exchange: 'oncebox.events',
  routing_key: 'note.noted',
  delivery: 'required',
  when_parked: 'hold',
  held: 0,
  attempts: 0,
  created_at: new Date(0),
  anything_waits: 0,
  ...change,
});

/** Answers by id, out of order, and keeps what was sent and how many of one key were ever in flight at once. */
function scripted(outcomes: Record<string, Outcome> = {}): Publisher & { sent: string[]; mostOfOneKey: number } {
  const inFlight = new Map<string, number>();
  const publisher = {
    ready: true,
    sent: [] as string[],
    mostOfOneKey: 0,
    async publish({ id, aggregateId }: { id: string; aggregateId: string }): Promise<Outcome> {
      publisher.sent.push(id);
      const now = (inFlight.get(aggregateId) ?? 0) + 1;
      inFlight.set(aggregateId, now);
      publisher.mostOfOneKey = Math.max(publisher.mostOfOneKey, now);
      for (let turns = id.length % 3; turns >= 0; turns--) await Promise.resolve();
      inFlight.set(aggregateId, now - 1);
      return outcomes[id] ?? { kind: 'confirmed' };
    },
  };
  return publisher;
}

const ids = (rows: readonly OutboxRow[]): string[] => rows.map(({ id }) => id);

describe('dispatch', () => {
  it('has at most one message of a key unconfirmed, and sends the keys side by side', async () => {
    const publisher = scripted();
    const rows = Array.from({ length: 30 }, (_, index) => row(index + 1, `k${index % 3}`));
    const { confirmed } = await dispatch(rows, 'shop', publisher, Infinity);
    expect(publisher.mostOfOneKey).toBe(1);
    expect(publisher.sent.slice(0, 3)).toEqual(['id-1', 'id-2', 'id-3']);
    for (const key of ['k0', 'k1', 'k2']) {
      const ofKey = ids(confirmed.filter((each) => each.aggregateid === key));
      expect(ofKey).toEqual(ids(rows.filter((each) => each.aggregateid === key)));
    }
  });

  it('tells the keys apart by type and id together, exactly', async () => {
    const publisher = scripted();
    const rows = [row(1, 'a'), row(2, 'a '), row(3, 'A'), row(4, 'a', { aggregatetype: 'other' })];
    await dispatch(rows, 'shop', publisher, Infinity);
    expect(publisher.sent.slice(0, 4)).toEqual(['id-1', 'id-2', 'id-3', 'id-4']);
  });

  it.each(['returned', 'nacked'] as const)(
    'sends nothing of a key after one that was %s, while others flow',
    async (kind) => {
      const publisher = scripted({ 'id-1': { kind, reason: 'NO_ROUTE' } });
      const rows = [row(1, 'a'), row(2, 'b'), row(3, 'a'), row(4, 'b'), row(5, 'a')];
      const result = await dispatch(rows, 'shop', publisher, Infinity);
      expect(ids(result.confirmed)).toEqual(['id-2', 'id-4']);
      expect(result.refused).toMatchObject([{ row: { id: 'id-1' }, reason: `${kind}: NO_ROUTE` }]);
      expect(ids(result.behind)).toEqual(['id-3', 'id-5']);
      expect(publisher.sent).not.toContain('id-3');
    },
  );

  it('holds a key behind a message that can never be sent, or goes on, as the message says', async () => {
    const unsendable: Outcome = { kind: 'unsendable', reason: 'headers too large' };
    const publisher = scripted({ 'id-1': unsendable, 'id-3': unsendable });
    const rows = [row(1, 'a'), row(2, 'a'), row(3, 'b', { when_parked: 'continue' }), row(4, 'b')];
    const result = await dispatch(rows, 'shop', publisher, Infinity);
    expect(result.unsendable.map(({ row: each }) => each.id).sort()).toEqual(['id-1', 'id-3']);
    expect(ids(result.behind)).toEqual(['id-2']);
    expect(ids(result.confirmed)).toEqual(['id-4']);
  });

  it('parks a row whose headers cannot be read, with the reason', async () => {
    const result = await dispatch([row(1, 'a', { headers: '{' })], 'shop', scripted(), Infinity);
    expect(result.unsendable).toMatchObject([{ reason: expect.stringContaining('ONCEBOX_INVALID_HEADERS') }]);
  });

  it.each(['0000-00-00', '2026-00-10', '1969-12-31'])('parks a row that was written at %s', async (time) => {
    const result = await dispatch(
      [row(1, 'a', { created_at: new Date(time) }), row(2, 'b')],
      'shop',
      scripted(),
      Infinity,
    );
    expect(result.unsendable).toMatchObject([{ reason: expect.stringContaining('ONCEBOX_UNSENDABLE_ROW') }]);
    expect(ids(result.confirmed)).toEqual(['id-2']);
  });

  it.each([
    [
      'throws',
      () => {
        throw new TypeError('secret');
      },
    ],
    ['rejects', () => Promise.reject(new TypeError('secret'))],
    ['rejects with no error', () => Promise.reject('secret')],
  ] as const)('refuses a row for which the publisher %s, and quotes nothing of it', async (_how, fail) => {
    const good = scripted();
    const publisher: Publisher = {
      ready: true,
      publish: (message) => (message.id === 'id-1' ? fail() : good.publish(message)),
    };
    const rows = [row(1, 'a'), row(2, 'a'), row(3, 'b')];
    const result = await dispatch(rows, 'shop', publisher, Infinity);
    expect(result).toMatchObject({ outage: undefined, unknown: 0 });
    expect(result.refused).toMatchObject([
      { row: { id: 'id-1' }, reason: expect.stringMatching(/^nacked: ONCEBOX_UNSENDABLE_ROW: (?!.*secret)/) },
    ]);
    expect(ids(result.behind)).toEqual(['id-2']);
    expect(ids(result.confirmed)).toEqual(['id-3']);
  });

  it('leaves rows as they are when an outage comes: neither refused nor behind', async () => {
    const publisher = scripted({ 'id-1': { kind: 'unknown', reason: 'channel closed' } });
    const result = await dispatch([row(1, 'a'), row(2, 'a'), row(3, 'b')], 'shop', publisher, Infinity);
    expect(result).toMatchObject({ refused: [], unsendable: [], behind: [], outage: 'channel closed' });
    expect(publisher.sent).not.toContain('id-2');
  });

  it('sends no further message of a key when its time is up, and says that it is not through', async () => {
    const result = await dispatch([row(1, 'a'), row(2, 'a'), row(3, 'b')], 'shop', scripted(), 0);
    expect(ids(result.confirmed).sort()).toEqual(['id-1', 'id-3']);
    expect(result).toMatchObject({ refused: [], behind: [], complete: false });
  });

  it('routes a row that a plain SQL writer left without a routing key by its aggregate type and type', async () => {
    const keys: string[] = [];
    const publisher: Publisher = {
      ready: true,
      publish: async ({ routingKey }) => {
        keys.push(routingKey);
        return { kind: 'confirmed' };
      },
    };
    await dispatch([row(1, 'a', { routing_key: null })], 'shop', publisher, Infinity);
    expect(keys).toEqual(['note.Noted']);
  });
});
