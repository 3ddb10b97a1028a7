import { createPool, type Pool } from '@oncebox/mysql';
import { findByKey } from '@oncebox/outbox';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  AFTER,
  dead,
  everybody,
  fulfilment,
  handled,
  register,
  run,
  schemas,
  shop,
  written,
} from '../support/messages.ts';

const ANNA = 'anna-4711';

/** @returns its exit code, and `<table> <outcome> <count>` of all schemas. */
async function erase(...args: string[]): Promise<{ code: number | null; counts: string[] }> {
  const { code, stdout } = await run('erase', '--json', '--key', ANNA, ...args);
  const { counts }: { counts: { table: string; outcome: string; count: number }[] } = JSON.parse(stdout);
  return { code, counts: counts.map(({ table, outcome, count }) => `${table} ${outcome} ${count}`).toSorted() };
}

const claimed = (id: string) => shop.query("INSERT INTO claimed_payloads (id, payload) VALUES (?, '{}')", [id]);
async function payloads(): Promise<string[]> {
  const [rows] = await shop.query<RowDataPacket[]>('SELECT id FROM claimed_payloads ORDER BY id');
  return rows.map(({ id }) => id);
}

describe('a claimed payload that a registered consumer may still fetch', () => {
  it.each([
    ['is optional', { delivery: 'optional' }, () => Promise.resolve()],
    [
      'was written before the consumer registered, and waits in its queue all the same',
      { type: 'Late' },
      () => register('late', AFTER, 'Late'),
    ],
    [
      'is older than what the inbox remembers',
      {},
      () => fulfilment.query("UPDATE retention SET forgotten_before = '2026-02-01' WHERE name = 'processed_messages'"),
    ],
  ])('stays with its row when the message %s, until it is handled', async (_case, change, prepare) => {
    await prepare();
    const id = await written({ aggregateid: ANNA, ...change });
    await claimed(id);
    const left = ['claimed_payloads needed 1', 'outbox on its way 1'];
    expect(await erase('--dry-run')).toEqual({ code: 1, counts: left });
    expect(await erase()).toEqual({ code: 1, counts: left });
    expect(await payloads()).toEqual([id]);

    await handled(id, ...everybody, 'late');
    expect(await erase()).toEqual({ code: 0, counts: ['claimed_payloads erased 1', 'outbox erased 1'] });
    expect(await payloads()).toEqual([]);
  });

  it('is given up with --discard', async () => {
    await claimed(await written({ aggregateid: ANNA, delivery: 'optional' }));
    const counts = ['claimed_payloads erased 1', 'outbox erased 1'];
    expect(await erase('--discard')).toEqual({ code: 0, counts });
  });

  it('keeps nothing of a message without one, as before', async () => {
    await written({ aggregateid: ANNA, delivery: 'optional' });
    expect(await erase()).toEqual({ code: 0, counts: ['outbox erased 1'] });
  });

  it('stays with the dead letter by which it is found when the row of the outbox is gone', async () => {
    const id = uuidv7();
    await dead(id, 'discarded');
    await fulfilment.query('UPDATE dead_letters SET properties = ?', [
      JSON.stringify({ headers: { 'cloudEvents:subject': ANNA } }),
    ]);
    await claimed(id);
    expect(await erase()).toEqual({ code: 1, counts: ['claimed_payloads needed 1', 'dead_letters on its way 1'] });
    expect(await payloads()).toEqual([id]);
    await handled(id, 'customer-directory');
    expect(await erase()).toEqual({ code: 0, counts: ['claimed_payloads erased 1', 'dead_letters erased 1'] });
  });

  it('goes when each of its consumers has discarded it', async () => {
    const id = await written({ aggregateid: ANNA });
    await claimed(id);
    await dead(id, 'discarded');
    await dead(id, 'discarded');
    await fulfilment.query("UPDATE dead_letters SET consumer = 'customer-directory' ORDER BY id DESC LIMIT 1");
    const counts = ['claimed_payloads erased 1', 'dead_letters erased 2', 'outbox erased 1'];
    expect(await erase()).toEqual({ code: 0, counts });
  });
});

it('comes to an end when one consumer has discarded a message and the other handles it later', async () => {
  const id = await written({ aggregateid: ANNA });
  await dead(id, 'discarded');
  expect(await erase()).toEqual({ code: 1, counts: ['dead_letters on its way 1', 'outbox not handled 1'] });
  await handled(id, 'customer-directory');
  expect(await erase()).toEqual({ code: 0, counts: ['dead_letters erased 1', 'outbox erased 1'] });
});

it('finds each row of a key once, whatever moves between states meanwhile', async () => {
  const relay: Pool = createPool(schemas.relayUrls.split(',')[0] ?? '', { connections: 2 });
  onTestFinished(() => relay.end());
  for (let count = 0; count < 3; count++) await written({ aggregateid: ANNA });
  let isDone = false;
  const moving = (async () => {
    // As the relay publishes, and as republish sets back.
    while (!isDone) await shop.query("UPDATE outbox SET state = IF(state = 'pending', 'published', 'pending')");
  })();
  const seen = new Set<number>();
  for (let count = 0; count < 200; count++) {
    const found = await findByKey(relay, ANNA, undefined);
    seen.add(found.length);
    seen.add(new Set(found.map(({ seq }) => seq)).size);
  }
  isDone = true;
  await moving;
  expect([...seen]).toEqual([3]);
});
