import { setTimeout as sleep } from 'node:timers/promises';
import { createRelay, type Outcome, type Publisher } from '@oncebox/outbox';
import type { RowDataPacket } from 'mysql2/promise';
import { describe, expect, it, vi } from 'vitest';
import {
  add,
  admin,
  channel,
  drain,
  newRelay,
  PUBLISHER,
  pool,
  QUEUE,
  quiet,
  rows,
  Step,
  schemas,
  seen,
  states,
  steps,
  Unheard,
  useRelays,
  vhost,
  Whisper,
} from '../support/walks.ts';

useRelays();

/** Of the one open transaction on this schema: as when its process dies. */
async function killTheSession(): Promise<void> {
  const holder = await vi.waitFor(
    async () => {
      const [sessions] = await admin.query<RowDataPacket[]>(
        `SELECT trx_mysql_thread_id AS id FROM information_schema.innodb_trx AS t
           JOIN information_schema.processlist AS p ON p.id = t.trx_mysql_thread_id WHERE p.db = ?`,
        [schemas.shop.name],
      );
      expect(sessions).toHaveLength(1);
      return Number(sessions[0]?.['id']);
    },
    { timeout: 5_000, interval: 250 }, // the server renews innodb_trx only when nobody has looked for 100 ms
  );
  await admin.query(`KILL ${holder}`);
}

describe('the relay, when something fails,', () => {
  it('keeps a message pending that no queue is bound for, holds its key behind it, and lets the others pass', async () => {
    await add(
      Unheard.message({ walk: 'a', step: 1 }),
      Step.message({ walk: 'a', step: 2 }),
      Step.message({ walk: 'b', step: 1 }),
    );
    const relay = newRelay({ backoff: { firstMs: 1, mostMs: 1 } });
    await relay.runOnce();
    await vi.waitFor(() => expect(steps()).toEqual(['b1']));
    expect(await states()).toEqual(['Unheard1 pending held', 'Step2 pending held', 'Step1 published']);
    const [head, behind] = await rows();
    expect(head).toMatchObject({ attempts: 1, last_error: expect.stringContaining('returned') });
    expect(behind).toMatchObject({ attempts: 0, last_error: null });

    // What comes later to the same key waits too, at no attempt.
    await add(Step.message({ walk: 'a', step: 3 }));
    await vi.waitFor(async () => {
      await relay.runOnce();
      expect(await states()).toEqual([
        'Unheard1 pending held',
        'Step2 pending held',
        'Step1 published',
        'Step3 pending held',
      ]);
    });

    // Once a queue is there, all go, in order.
    await channel.bindQueue(QUEUE, 'oncebox.events', 'walk.unheard');
    await vi.waitFor(async () => {
      await relay.runOnce();
      expect(steps()).toEqual(['b1', 'a1', 'a2', 'a3']);
    });
    expect(new Set((await rows()).map((row) => `${row['state']} ${row['held']}`))).toEqual(new Set(['published 0']));
    const [waiting] = await admin.query<RowDataPacket[]>('SELECT * FROM outbox_waiting');
    expect(waiting).toEqual([]);
  });

  it.each([0, 24])(
    'settles exactly what is confirmed of a full pass, with a retention of %i hours',
    async (retentionHours) => {
      const walks = Array.from({ length: 600 }, (_, n) => `w${n}`);
      await add(
        ...walks.flatMap((walk, n) => [
          Step.message({ walk, step: 1 }),
          ...(n % 5 === 0 ? [Unheard.message({ walk, step: 2 }), Step.message({ walk, step: 3 })] : []),
        ]),
      );
      const [result] = await newRelay({ retentionHours }).runOnce();
      expect(result).toMatchObject({ refused: 120, parked: 0 });
      expect(result?.published).toHaveLength(600);
      const left = Object.groupBy(await states(), (state) => state);
      expect(left['Unheard2 pending held']).toHaveLength(120);
      expect(left['Step3 pending held']).toHaveLength(120);
      expect(left['Step1 published']?.length ?? 0).toBe(retentionHours === 0 ? 0 : 600);
      expect(left['Step1 pending']).toBeUndefined();
      await vi.waitFor(() => expect(new Set(steps())).toEqual(new Set(walks.map((walk) => `${walk}1`))));
    },
  );

  it('doubles the pause after each refusal, up to its limit', async () => {
    await add(Unheard.message({ walk: 'a', step: 1 }));
    const relay = newRelay({ backoff: { firstMs: 60_000, mostMs: 100_000 } });
    const pauses: number[] = [];
    for (let attempt = 1; attempt <= 3; attempt++) {
      await relay.runOnce();
      const [[row]] = await admin.query<RowDataPacket[]>(
        'SELECT attempts, TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(6), available_at) AS pause FROM outbox',
      );
      expect(row?.['attempts']).toBe(attempt);
      pauses.push(Number(row?.['pause']));
      expect(await relay.runOnce()).toEqual([]);
      await admin.query('UPDATE outbox_waiting SET due_at = UTC_TIMESTAMP(6)');
    }
    // Between half and all of 60, 100 and 100 s; a second for what the test itself takes.
    for (const [index, most] of [60, 100, 100].entries()) {
      expect(pauses[index]).toBeGreaterThanOrEqual(most / 2 - 2);
      expect(pauses[index]).toBeLessThanOrEqual(most);
    }
  });

  it('tries a message again when it is due, also while every pass is full', async () => {
    await add(Unheard.message({ walk: 'again', step: 1 }));
    const relay = newRelay({ backoff: { firstMs: 1, mostMs: 1 }, batch: 20 });
    await relay.runOnce();
    expect(await states()).toEqual(['Unheard1 pending held']);
    await channel.bindQueue(QUEUE, 'oncebox.events', 'walk.unheard');
    await add(...Array.from({ length: 1_500 }, (_, n) => Step.message({ walk: `w${n}-`, step: 1 })));
    relay.start();
    await vi.waitFor(() => expect(seen).toHaveLength(1_501), 20_000);
    expect(steps().indexOf('again1')).toBeLessThan(1_000);
  });

  it('drains what has piled up behind a refused message in a few passes, in order', async () => {
    const steps40 = Array.from({ length: 40 }, (_, index) => Step.message({ walk: 'a', step: index + 2 }));
    await add(Unheard.message({ walk: 'a', step: 1 }), ...steps40);
    const relay = newRelay({ backoff: { firstMs: 1, mostMs: 1 } });
    await relay.runOnce();
    expect(new Set((await states()).map((state) => state.replace(/\d+/, '')))).toEqual(
      new Set(['Unheard pending held', 'Step pending held']),
    );
    await channel.bindQueue(QUEUE, 'oncebox.events', 'walk.unheard');
    await vi.waitFor(async () => expect(await relay.runOnce()).toHaveLength(1));
    await vi.waitFor(() => expect(steps()).toEqual(Array.from({ length: 41 }, (_, index) => `a${index + 1}`)));
  });

  it('lets nothing pass a parked message when an earlier one, which committed late, has waited and gone', async () => {
    const late = await pool.getConnection();
    await late.beginTransaction();
    await late.execute(
      `INSERT INTO outbox (id, aggregatetype, aggregateid, type, version, payload, routing_key)
       VALUES (UUID(), 'walk', 'a', 'Unheard', 1, '{"walk":"a","step":1}', 'walk.unheard')`,
    );
    const second = Step.message({ walk: 'a', step: 2 });
    await add(second, Step.message({ walk: 'a', step: 3 }));
    // By its id: an UPDATE that looked at every row would wait for the open transaction.
    await admin.query("UPDATE outbox SET headers = 'no JSON' WHERE id = ?", [second.id]);
    const relay = newRelay({ backoff: { firstMs: 1, mostMs: 1 } });
    await relay.runOnce();
    await late.commit();
    late.release();
    await vi.waitFor(async () => {
      await relay.runOnce();
      expect(await states()).toEqual(['Unheard1 pending held', 'Step2 parked held', 'Step3 pending held']);
    });
    await channel.bindQueue(QUEUE, 'oncebox.events', 'walk.unheard');
    await vi.waitFor(async () => {
      await relay.runOnce();
      expect(await states()).toEqual(['Unheard1 published', 'Step2 parked held', 'Step3 pending held']);
    });
    expect(await relay.runOnce()).toEqual([]);
    expect(steps()).toEqual(['a1']);
  });

  it('goes on with a key whose waiting head was deleted by hand', async () => {
    await add(Unheard.message({ walk: 'a', step: 1 }), Step.message({ walk: 'a', step: 2 }));
    const relay = newRelay({ backoff: { firstMs: 1, mostMs: 1 } });
    await relay.runOnce();
    await admin.query("DELETE FROM outbox WHERE type = 'Unheard'");
    await vi.waitFor(async () => {
      await relay.runOnce();
      expect(steps()).toEqual(['a2']);
    });
    expect(await states()).toEqual(['Step2 published']);
    const [waiting] = await admin.query<RowDataPacket[]>('SELECT * FROM outbox_waiting');
    expect(waiting).toEqual([]);
  });

  it('counts an optional message as sent when nobody listens', async () => {
    await add(Whisper.message({ walk: 'a', step: 1 }));
    await drain(newRelay());
    expect(await states()).toEqual(['Whisper1 published']);
  });

  it('parks a row that can never be sent, and its key holds or goes on as the row says', async () => {
    await add(Step.message({ walk: 'a', step: 1 }), Step.message({ walk: 'a', step: 2 }));
    await add(
      Step.message({ walk: 'b', step: 1 }),
      Step.message({ walk: 'b', step: 2 }),
      Step.message({ walk: 'c', step: 1 }),
    );
    await admin.query("UPDATE outbox SET headers = 'no JSON' WHERE payload LIKE '%:1}' AND aggregateid IN ('a', 'b')");
    await admin.query("UPDATE outbox SET when_parked = 'continue' WHERE aggregateid = 'b'");
    const relay = newRelay();
    await drain(relay);
    await vi.waitFor(() => expect(steps().sort()).toEqual(['b2', 'c1']));
    expect(await states()).toEqual([
      'Step1 parked held',
      'Step2 pending held',
      'Step1 parked',
      'Step2 published',
      'Step1 published',
    ]);
    expect((await rows())[0]?.['last_error']).toContain('ONCEBOX_INVALID_HEADERS');
    await add(Step.message({ walk: 'a', step: 3 }));
    await drain(relay);
    expect((await states()).at(-1)).toBe('Step3 pending held');
  });

  it('settles nothing that is not confirmed, and frees its partitions with its session', async () => {
    await add(Step.message({ walk: 'a', step: 1 }));
    const asked = Promise.withResolvers<void>();
    const never: Publisher = {
      ready: true,
      publish: () => {
        asked.resolve();
        return new Promise<Outcome>(() => undefined);
      },
    };
    const stuck = createRelay({
      databaseUrls: schemas.relayUrls.split(',').slice(0, 1),
      publisher: never,
      logger: quiet,
    });
    const interrupted = stuck.runOnce();
    interrupted.catch(() => undefined);
    await asked.promise;
    expect(await states()).toEqual(['Step1 pending']);
    const other = newRelay();
    expect((await other.runOnce()).flatMap((result) => result.published)).toEqual([]);
    await killTheSession();
    await vi.waitFor(async () => {
      await other.runOnce();
      expect(await states()).toEqual(['Step1 published']);
    });
  });

  it('stops while another relay is frozen with a partition in its hands, which its cleaner waits for', async () => {
    const frozen = await admin.getConnection();
    await frozen.query('START TRANSACTION');
    await frozen.query('SELECT partition_id FROM outbox_partition WHERE partition_id = 3 FOR UPDATE');
    const relay = createRelay({
      databaseUrls: schemas.relayUrls.split(',').slice(0, 1),
      publisher: { ready: true, publish: async () => ({ kind: 'confirmed' }) },
      logger: quiet,
    });
    relay.start();
    await vi.waitFor(
      async () => {
        const [waiting] = await admin.query<RowDataPacket[]>(
          `SELECT 1 FROM information_schema.innodb_trx AS t JOIN information_schema.processlist AS p ON p.id = t.trx_mysql_thread_id
            WHERE p.db = ? AND t.trx_state = 'LOCK WAIT'`,
          [schemas.shop.name],
        );
        expect(waiting).toHaveLength(1);
      },
      { timeout: 20_000, interval: 250 },
    );
    await relay.stop(); // whoever waits for the lock waits until the end of this test
    await frozen.query('ROLLBACK');
    frozen.release();
  }, 20_000); // a process has nine seconds to stop; without the limit of the wait it took thirty

  it('sends no more once its session is lost, since another relay has its partitions then', async () => {
    const keys = 50;
    await add(
      ...Array.from({ length: 1_000 }, (_, n) =>
        Step.message({ walk: `w${n % keys}`, step: Math.floor(n / keys) + 1 }),
      ),
    );
    const killed = Promise.withResolvers<void>();
    let sent = 0;
    const slow: Publisher = {
      ready: true,
      async publish() {
        sent += 1;
        if (sent === keys) killTheSession().then(killed.resolve, killed.reject);
        await killed.promise;
        await sleep(5); // what a broker takes
        return { kind: 'confirmed' };
      },
    };
    await expect(newRelay({ publisher: slow, batch: 10_000 }).runOnce()).rejects.toThrow();
    expect(sent).toBeGreaterThan(keys);
    expect(sent).toBeLessThan(1_000);
    expect(new Set(await states())).toEqual(new Set(Array.from({ length: 20 }, (_, n) => `Step${n + 1} pending`)));
  });

  it('counts no attempt when the connection to the broker is cut, and sends again under the same id', async () => {
    const relay = newRelay();
    relay.start();
    const expected = new Set<string>();
    for (let step = 1; step <= 200; step++) {
      const message = Step.message({ walk: `k${step % 7}-`, step });
      expected.add(message.id);
      await add(message);
      if (step === 100) await vhost.closeConnections(PUBLISHER);
    }
    await vi.waitFor(() => expect(new Set(seen.map((message) => message.properties.messageId))).toEqual(expected), {
      timeout: 30_000,
    });
    await vi.waitFor(async () =>
      expect((await rows()).every((row) => row['state'] === 'published' && row['attempts'] === 0)).toBe(true),
    );
  });
});
