import { createPool, type Pool } from '@oncebox/mysql';
import { readOutboxProblems } from '@oncebox/outbox';
import fc from 'fast-check';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { type Repaired, repairing } from '../../packages/outbox/src/repair.ts';
import { deleteExpired } from '../../packages/outbox/src/retention.ts';
import { admin, drain, newRelay, rows, schemas, seen, steps, useRelays } from '../support/walks.ts';

useRelays();

/** The relay's own user. */
let relays: Pool;
beforeAll(() => {
  relays = createPool(schemas.relayUrls.split(',')[0] ?? '', { connections: 2 });
});
afterAll(async () => {
  await relays.end();
});

const PATIENCE = { timeout: 20_000, interval: 20 };

interface Planned {
  readonly walk: string;
  readonly state: 'pending' | 'published' | 'parked';
  readonly held: 0 | 1;
  /** Of its entry; undefined for none. */
  readonly due?: 'now' | 'never';
}
const ready = (walk: string): Planned => ({ walk, state: 'pending', held: 0 });
const refused = (walk: string): Planned => ({ walk, state: 'pending', held: 1, due: 'now' });
const behind = (walk: string): Planned => ({ walk, state: 'pending', held: 1, due: 'never' });
const parked = (walk: string): Planned => ({ walk, state: 'parked', held: 1, due: 'never' });
const published = (walk: string): Planned => ({ walk, state: 'published', held: 0 });

/** Rows as a relay leaves them; the step of each is its place, from 1. @returns their `seq`. */
async function plan(planned: readonly Planned[]): Promise<readonly string[]> {
  const seqs: string[] = [];
  for (const [index, { walk, state, held, due }] of planned.entries()) {
    const payload = JSON.stringify({ walk, step: index + 1 });
    await admin.query(
      `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, routing_key, state, held, published_at)
       VALUES (?, 'walk', ?, 'Step', ?, 'walk.step', ?, ?, IF(? = 'published', UTC_TIMESTAMP(6), NULL))`,
      [uuidv7(), walk, payload, state, held, state],
    );
    const [[row]] = await admin.query<RowDataPacket[]>('SELECT CAST(MAX(seq) AS CHAR) AS seq FROM outbox');
    seqs.push(String(row?.['seq']));
    if (due === undefined) continue;
    await admin.query(
      `INSERT INTO outbox_waiting SELECT seq, partition_id, aggregatetype, aggregateid, IF(?, UTC_TIMESTAMP(6), NULL)
         FROM outbox ORDER BY outbox.seq DESC LIMIT 1`,
      [due === 'now'],
    );
  }
  return seqs;
}

/** Changes by hand: `#1` is the `seq` of the first row. */
async function type(statements: readonly string[], seqs: readonly string[]): Promise<void> {
  for (const statement of statements) await admin.query(statement.replaceAll(/#(\d+)/g, (_, n) => seqs[n - 1] ?? '0'));
}

const standing = async (): Promise<string[]> =>
  (await rows()).map((row) => `${JSON.parse(row['payload']).step} ${row['state']} ${row['held']}`);
const entries = async (): Promise<RowDataPacket[]> =>
  (await admin.query<RowDataPacket[]>('SELECT * FROM outbox_waiting ORDER BY seq'))[0];
const count = (repaired: readonly Repaired[]): Record<string, number> =>
  Object.fromEntries(
    Array.from(
      Map.groupBy(repaired, ({ fault }) => fault),
      ([fault, all]) => [fault, all.length],
    ),
  );

const KEY = [parked('a'), behind('a'), behind('a'), ready('b')];

/** What somebody types, and which steps go out in the end. */
const TYPED: [what: string, planned: readonly Planned[], statements: string[], sent: string[]][] = [
  ['the row of a parked head deleted', KEY, ['DELETE FROM outbox WHERE seq = #1'], ['a2', 'a3', 'b4']],
  [
    'the row and the entry of a parked head deleted',
    KEY,
    ['DELETE FROM outbox WHERE seq = #1', 'DELETE FROM outbox_waiting WHERE seq = #1'],
    ['a2', 'a3', 'b4'],
  ],
  [
    'the row and the entry of a refused head deleted',
    [refused('a'), behind('a'), behind('a')],
    ['DELETE FROM outbox WHERE seq = #1', 'DELETE FROM outbox_waiting WHERE seq = #1'],
    ['a2', 'a3'],
  ],
  ['two rows of a key deleted', KEY, ['DELETE FROM outbox WHERE seq IN (#1, #2)'], ['a3', 'b4']],
  ['the row of a follower deleted', KEY, ['DELETE FROM outbox WHERE seq = #2'], ['b4']],
  ['the entry of a parked head deleted', KEY, ['DELETE FROM outbox_waiting WHERE seq = #1'], ['b4']],
  [
    'the entry of a refused head deleted',
    [refused('a'), behind('a')],
    ['DELETE FROM outbox_waiting WHERE seq = #1'],
    ['a1', 'a2'],
  ],
  [
    'the entry of a follower deleted',
    [refused('a'), behind('a'), behind('a')],
    ['DELETE FROM outbox_waiting WHERE seq = #2'],
    ['a1', 'a2', 'a3'],
  ],
  ['all entries deleted', KEY, ['DELETE FROM outbox_waiting'], ['b4']],
  [
    'a parked head set to pending',
    KEY,
    ["UPDATE outbox SET state = 'pending' WHERE seq = #1"],
    ['a1', 'a2', 'a3', 'b4'],
  ],
  [
    'a parked head set to pending and not held',
    KEY,
    ["UPDATE outbox SET state = 'pending', held = 0 WHERE seq = #1"],
    ['a1', 'a2', 'a3', 'b4'],
  ],
  ['a parked head released', KEY, ['UPDATE outbox SET held = 0 WHERE seq = #1'], ['a2', 'a3', 'b4']],
  [
    'a parked head set to published',
    KEY,
    ["UPDATE outbox SET state = 'published', published_at = NOW() WHERE seq = #1"],
    ['a2', 'a3', 'b4'],
  ],
  [
    'a parked head given when_parked = continue',
    KEY,
    ["UPDATE outbox SET when_parked = 'continue' WHERE seq = #1"],
    ['a2', 'a3', 'b4'],
  ],
  ['a row made held', [ready('a'), ready('a')], ['UPDATE outbox SET held = 1 WHERE seq = #1'], ['a1', 'a2']],
  [
    'a row made held behind a ready one',
    [refused('a'), behind('a'), ready('a'), ready('a')],
    ['UPDATE outbox SET held = 1 WHERE seq = #4'],
    ['a1', 'a2', 'a3', 'a4'],
  ],
  ['a row inserted as held', [{ walk: 'a', state: 'pending', held: 1 }], [], ['a1']],
  ['an entry that no row has', [ready('a')], ["INSERT INTO outbox_waiting VALUES (0, 1, 'walk', 'a', NULL)"], ['a1']],
  [
    'the entry of a head given another key',
    [refused('a'), behind('a'), ready('c')],
    ["UPDATE outbox_waiting SET aggregateid = 'c' WHERE seq = #1"],
    ['a1', 'a2', 'c3'],
  ],
  [
    'the entry of another key for a ready row',
    [ready('a'), parked('c'), behind('c')],
    ["INSERT INTO outbox_waiting VALUES (#1, 3, 'walk', 'c', NULL)"],
    ['a1'],
  ],
  [
    'the entry of a follower given another partition',
    [refused('a'), behind('a')],
    ['UPDATE outbox_waiting SET partition_id = 15 - partition_id'],
    ['a1', 'a2'],
  ],
  [
    'a waiting row given another key',
    [refused('a'), behind('a'), refused('c'), behind('c')],
    ["UPDATE outbox SET aggregateid = 'c' WHERE seq = #1"],
    ['a1', 'a2', 'c3', 'c4'],
  ],
  [
    'a waiting row given another number',
    [refused('a'), behind('a')],
    ['UPDATE outbox SET seq = seq + 100000 WHERE seq = #1'],
    ['a2', 'a1'],
  ],
  ['nothing due', [refused('a'), behind('a')], ['UPDATE outbox_waiting SET due_at = NULL'], ['a1', 'a2']],
  ['a partition deleted', [ready('a'), refused('c')], ['DELETE FROM outbox_partition'], ['a1', 'c2']],
];

describe('a relay that runs', () => {
  it.each(TYPED)('I11: sends what waits, after %s', async (_what, planned, statements, sent) => {
    await type(statements, await plan(planned));
    const lines: string[] = [];
    const log = (_fields: object, text: string): void => void lines.push(text);
    const relay = newRelay({ logger: { info() {}, warn: log, error: log } });
    relay.start();
    // In what order: that depends on whether a pass or the repair comes first. I12 shows it.
    await vi.waitFor(() => expect(steps().toSorted()).toEqual(sent.toSorted()), PATIENCE);
    // A pass may come first, and leave nothing to repair.
    expect(lines.filter((text) => text !== 'Repaired rows of the outbox that somebody had changed')).toEqual([]);
  });
});

/** Changes of one of the rows, or of its entry. */
const CHANGES = [
  'DELETE FROM outbox WHERE seq = #1',
  'DELETE FROM outbox_waiting WHERE seq = #1',
  "UPDATE outbox SET state = 'pending' WHERE seq = #1",
  "UPDATE outbox SET state = 'pending', held = 0 WHERE seq = #1",
  "UPDATE outbox SET state = 'published', published_at = UTC_TIMESTAMP(6) WHERE seq = #1",
  "UPDATE outbox SET state = 'parked' WHERE seq = #1",
  "UPDATE outbox SET state = 'parked', held = 1 WHERE seq = #1",
  'UPDATE outbox SET held = 0 WHERE seq = #1',
  'UPDATE outbox SET held = 1 WHERE seq = #1',
  "UPDATE outbox SET when_parked = 'continue' WHERE seq = #1",
  'UPDATE outbox SET attempts = 4294967295 WHERE seq = #1',
  "UPDATE outbox SET available_at = '2100-01-01' WHERE seq = #1",
  "UPDATE outbox SET aggregateid = 'b' WHERE seq = #1",
  "UPDATE outbox SET aggregatetype = 'run' WHERE seq = #1",
  'UPDATE outbox SET seq = seq + 1000 WHERE seq = #1',
  'UPDATE outbox SET seq = seq - 1000 WHERE seq = #1',
  "UPDATE outbox_waiting SET aggregateid = 'b' WHERE seq = #1",
  "UPDATE outbox_waiting SET aggregateid = 'a ' WHERE seq = #1",
  "UPDATE outbox_waiting SET aggregatetype = 'run' WHERE seq = #1",
  'UPDATE outbox_waiting SET partition_id = (partition_id + 1) % 16 WHERE seq = #1',
  'UPDATE outbox_waiting SET due_at = NULL WHERE seq = #1',
  'UPDATE outbox_waiting SET due_at = UTC_TIMESTAMP(6) WHERE seq = #1',
  'UPDATE outbox_waiting SET due_at = UTC_TIMESTAMP(6) + INTERVAL 1 MINUTE WHERE seq = #1',
  'UPDATE outbox_waiting SET seq = seq + 1000 WHERE seq = #1',
  "INSERT IGNORE INTO outbox_waiting VALUES (#1, 3, 'walk', 'a', NULL)",
  "INSERT IGNORE INTO outbox_waiting VALUES (#1, 3, 'walk', 'b', UTC_TIMESTAMP(6))",
  "INSERT IGNORE INTO outbox_waiting VALUES (#1 + 500000, 3, 'walk', 'b', UTC_TIMESTAMP(6))",
  'DELETE FROM outbox_partition WHERE partition_id = #1 % 16',
];

/** A key as relays leave it. */
const oneKey = (walk: string): fc.Arbitrary<readonly Planned[]> =>
  fc
    .record({
      before: fc.nat(1),
      head: fc.constantFrom('none', 'refused', 'parked'),
      followers: fc.nat(3),
      after: fc.nat(2),
    })
    .map(({ before, head, followers, after }) => [
      ...Array.from({ length: before }, () => published(walk)),
      ...(head === 'none' ? [] : [head === 'parked' ? parked(walk) : refused(walk)]),
      ...(head === 'none' ? [] : Array.from({ length: followers }, () => behind(walk))),
      ...Array.from({ length: after }, () => ready(walk)),
    ]);

/**
 * By key, the ids that must go out, in order: whatever is pending, up to a parked row that holds
 * its key.
 */
async function expectedOf(): Promise<Map<string, string[]>> {
  const expected = new Map<string, string[]>();
  for (const [key, ofKey] of Map.groupBy(await rows(), (row) => `${row['aggregatetype']}/${row['aggregateid']}`)) {
    const end = ofKey.findIndex(
      (row) => row['state'] === 'parked' && row['held'] === 1 && row['when_parked'] === 'hold',
    );
    const free = ofKey.slice(0, end === -1 ? undefined : end).filter((row) => row['state'] === 'pending');
    if (free.length > 0)
      expected.set(
        key,
        free.map((row) => row['id']),
      );
  }
  return expected;
}

describe('rows that somebody has changed in any way', () => {
  it('I12: are published in the order of their key, but behind parked ones, which hold their key and no other', async () => {
    const changes = fc.array(fc.record({ statement: fc.constantFrom(...CHANGES), row: fc.nat(20) }), {
      minLength: 1,
      maxLength: 6,
    });
    await fc.assert(
      fc.asyncProperty(fc.tuple(oneKey('a'), oneKey('a '), oneKey('b')), changes, async (keys, changed) => {
        await admin.query('DELETE FROM outbox');
        await admin.query('DELETE FROM outbox_waiting');
        seen.splice(0);
        const seqs = await plan(keys.flat());
        for (const { statement, row } of changed) {
          const seq = seqs[row % Math.max(1, seqs.length)];
          if (seq !== undefined) await type([statement], [seq]);
        }
        const expected = await expectedOf();
        const keyOf = new Map([...expected].flatMap(([key, ids]) => ids.map((id) => [id, key])));
        const repair = repairing(relays);
        await repair();
        await admin.query('UPDATE outbox_waiting SET due_at = UTC_TIMESTAMP(6) WHERE due_at > UTC_TIMESTAMP(6)');
        await drain(newRelay());
        const ids = (): string[] => seen.map(({ properties }) => properties.messageId);
        await vi.waitFor(() => expect(ids().toSorted()).toEqual([...keyOf.keys()].toSorted()), PATIENCE);
        expect(Map.groupBy(ids(), (id) => keyOf.get(id) ?? 'none')).toEqual(expected);
        expect(await repair()).toEqual([]);
        const waiting = (await rows()).filter((row) => row['held'] === 1);
        expect((await entries()).map(({ seq }) => seq)).toEqual(waiting.map(({ seq }) => seq));
      }),
      { numRuns: 60 },
    );
  }, 300_000);
});

describe('a repair', () => {
  it('I13: says what it repaired, and finds nothing more', async () => {
    const seqs = await plan([...KEY, refused('c'), behind('c')]);
    await type(['DELETE FROM outbox WHERE seq = #1', 'DELETE FROM outbox_waiting WHERE seq = #5'], seqs);
    const repair = repairing(relays);
    const repaired = await repair();
    expect(count(repaired)).toEqual({ rowGone: 1, entryMissing: 1, headNotDue: 1 });
    expect(repaired.map(({ what }) => what)).toContain(`seq ${seqs[0]}`);
    expect(await repair()).toEqual([]);
  });

  it('I13: leaves alone what waits in order', async () => {
    await plan([...KEY, refused('c'), behind('c'), published('d')]);
    const before = [await rows(), await entries()];
    expect(await repairing(relays)()).toEqual([]);
    expect([await rows(), await entries()]).toEqual(before);
  });

  it('I13: passes over a partition that a relay holds, and has it in the next round', async () => {
    await type(['DELETE FROM outbox WHERE seq = #1'], await plan(KEY));
    const holder = await admin.getConnection();
    await holder.query('BEGIN');
    await holder.query('SELECT * FROM outbox_partition FOR UPDATE');
    const impatient = createPool(schemas.relayUrls.split(',')[0] ?? '', {
      connections: 1,
      session: { innodb_lock_wait_timeout: 1 },
    });
    const repair = repairing(impatient);
    expect(await repair()).toEqual([]);
    await holder.query('ROLLBACK');
    holder.release();
    expect(count(await repair())).toEqual({ rowGone: 1 });
    await impatient.end();
  });

  it('I13: gives thousands of rows their entries back before any head becomes due', async () => {
    await plan([refused('a')]);
    const digits = Array.from({ length: 10 }, (_, n) => `SELECT ${n} AS n`).join(' UNION ALL ');
    await admin.query(
      `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, routing_key, held)
       SELECT UUID(), 'walk', 'a', 'Step', CONCAT('{"walk":"a","step":', 2 + a.n + 10 * b.n + 100 * c.n + 1000 * d.n, '}'), 'walk.step', 1
         FROM (${digits}) AS a, (${digits}) AS b, (${digits}) AS c, (${digits}) AS d ORDER BY a.n + 10 * b.n + 100 * c.n + 1000 * d.n`,
    );
    await admin.query('DELETE FROM outbox_waiting');
    const repair = repairing(relays);
    for (const due: number[] = []; due.length < 1; ) {
      await repair();
      due.push(...(await entries()).filter((row) => row['due_at'] !== null).map((row) => row['seq']));
      if (due.length > 0) expect(due).toEqual([(await entries())[0]?.['seq']]);
    }
    expect(await entries()).toHaveLength(10_001);
    expect(await repair()).toEqual([]);
  });
});

describe('published rows', () => {
  it('I15: with a time to come delay the retention of those behind them by no more than the retention', async () => {
    await plan(Array.from({ length: 520 }, () => published('a')));
    await admin.query("UPDATE outbox SET published_at = '2100-01-01' ORDER BY seq LIMIT 510");
    const clean = (): Promise<boolean> => deleteExpired(relays, 3, 1);
    await clean();
    expect(await rows()).toHaveLength(520);
    // Two hours go by.
    await admin.query('UPDATE outbox SET published_at = published_at - INTERVAL 2 HOUR');
    while (await clean());
    const left = await rows();
    expect(left).toHaveLength(10);
    await clean();
    await admin.query('UPDATE outbox SET published_at = published_at - INTERVAL 2 HOUR');
    await clean();
    expect(await rows()).toEqual([]);
  });
});

describe('the problems of an outbox', () => {
  it('I14: name held messages that are due too late, with the command that sends them', async () => {
    const [seq = ''] = await plan([refused('a'), behind('a')]);
    expect(await readOutboxProblems(relays)).toEqual([]);
    await type(["UPDATE outbox_waiting SET due_at = '2100-01-01' WHERE seq = #1"], [seq]);
    const [row] = await rows();
    expect(await readOutboxProblems(relays)).toEqual([
      {
        code: 'ONCEBOX_DUE_TOO_LATE',
        what: expect.stringContaining('24 hours'),
        command: `oncebox outbox retry ${row?.['id']}`,
      },
    ]);
    const lines: [fields: object, text: string][] = [];
    const log = (fields: object, text: string): void => void lines.push([fields, text]);
    newRelay({ logger: { info: log, warn: log, error: log } }).start();
    await vi.waitFor(
      () => expect(lines).toEqual([[expect.objectContaining({ code: 'ONCEBOX_DUE_TOO_LATE' }), expect.any(String)]]),
      PATIENCE,
    );
    expect(await standing()).toEqual(['1 pending 1', '2 pending 1']);
  });

  it('I14: name a partition that the relay may not put back', async () => {
    await admin.query('DELETE FROM outbox_partition WHERE partition_id IN (3, 5)');
    expect(await readOutboxProblems(relays)).toEqual([
      {
        code: 'ONCEBOX_PARTITION_MISSING',
        what: expect.stringContaining('partitions 3, 5:'),
        command: 'oncebox migrate',
      },
    ]);
    expect(count(await repairing(relays)())).toEqual({ partitionMissing: 2 });
    expect(await readOutboxProblems(relays)).toEqual([]);
  });
});
