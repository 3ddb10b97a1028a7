import { transaction } from '@oncebox/mysql';
import type { ResultSetHeader, RowDataPacket } from 'mysql2/promise';
import { expect, it } from 'vitest';
import {
  copies,
  listen,
  PATIENCE,
  published,
  readiness,
  relayUser,
  trigger,
  twenty,
  undo,
} from '../support/cannot-settle.ts';
import { add, admin, newRelay, Step, states, steps, Unheard, useRelays } from '../support/walks.ts';

/** Some messages cannot be settled: they are not sent, and delay no other. */

useRelays();

// One lane where a test counts copies: the dry run of one pass then has all rows. Of two lanes, the
// first to commit ends the dry runs of both, and a message that alone is refused can cost one copy.
const REFUSE_BAD = "IF OLD.aggregateid LIKE 'bad%' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END IF";
const many = (count: number, walk: (n: number) => string) =>
  Array.from({ length: count }, (_, n) => Step.message({ walk: walk(n), step: n }));

it.each([
  ['of many keys', (n: number) => `bad${n}`],
  ['of one key', () => 'bad'],
])(
  'C3: four thousand messages %s that cannot be settled delay no other',
  async (_, walk) => {
    await trigger(REFUSE_BAD);
    await add(...many(4_000, walk));
    await add(...twenty());
    const relay = newRelay({ lanes: 1 });
    relay.start();
    await expect.poll(published, PATIENCE).toBe(20);
    await add(...twenty().map((_, n) => Step.message({ walk: `later${n}`, step: 1 })));
    await expect.poll(published, PATIENCE).toBe(40);
    expect(steps().filter((step) => step.startsWith('bad'))).toEqual([]);
    expect(copies()).toBe(1);
    await admin.query('DROP TRIGGER refuses');
    await expect.poll(() => steps().length, { ...PATIENCE, timeout: 120_000 }).toBe(4_040);
    if (walk(1) === 'bad') {
      expect(steps().filter((step) => step.startsWith('bad'))).toEqual(
        many(4_000, (n) => `bad${n}`).map((_, n) => `bad${n}`),
      );
    }
    expect(copies()).toBe(1);
  },
  240_000,
);

it('C3: a message that waits behind a refused one, and cannot be settled, stops no other', async () => {
  await add(Unheard.message({ walk: 'bad', step: 1 }));
  const relay = newRelay({ backoff: { firstMs: 300_000, mostMs: 300_000 } });
  relay.start();
  await expect.poll(states, PATIENCE).toEqual(['Unheard1 pending held']);
  await trigger(REFUSE_BAD);
  await add(Step.message({ walk: 'bad', step: 2 }), ...twenty());
  await expect.poll(published, PATIENCE).toBe(20);
  // The relay was proven when the trigger came: the pass under way then costs one copy.
  expect(copies()).toBeLessThanOrEqual(2);
  expect(await states()).toContain('Step2 pending');
});

it('C3: what a trigger lacks for some messages keeps no other from being sent', async () => {
  await trigger("IF OLD.aggregateid LIKE 'bad%' THEN INSERT INTO no_such_audit VALUES (1); END IF");
  await add(Step.message({ walk: 'bad1', step: 1 }), Step.message({ walk: 'bad2', step: 1 }), ...twenty());
  const relay = newRelay({ lanes: 1 });
  relay.start();
  await expect.poll(published, PATIENCE).toBe(20);
  expect(steps().filter((step) => step.startsWith('bad'))).toEqual([]);
  expect(copies()).toBe(1);
  await admin.query('DROP TRIGGER refuses');
  await expect.poll(published, PATIENCE).toBe(22);
});

it('C3: a relay whose pass was cut off is ready once the database answers, also while another relay has the work', async () => {
  await add(...twenty());
  const killing = Promise.withResolvers<void>();
  const release = Promise.withResolvers<void>();
  const other = transaction(admin, async (tx) => {
    await killing.promise;
    await tx.query('SELECT partition_id FROM outbox_partition FOR UPDATE');
    await release.promise;
  });
  const publish = async () => {
    const [sessions] = await admin.query<RowDataPacket[]>(
      'SELECT id FROM information_schema.processlist WHERE user = ?',
      [relayUser()],
    );
    killing.resolve();
    for (const { id } of sessions.map((row) => ({ id: row['id'] ?? row['ID'] }))) {
      await admin.query('KILL ?', [id]).catch(() => undefined);
    }
    return { kind: 'confirmed' as const };
  };
  const { logger, said } = listen();
  const relay = newRelay({ publisher: { ready: true, publish }, logger });
  relay.start();
  await expect.poll(() => said('Waiting for database'), PATIENCE).toBeGreaterThan(0);
  await expect.poll(() => readiness(relay), { ...PATIENCE, timeout: 20_000 }).toBe('ready');
  expect(await published()).toBe(0);
  await relay.stop();
  release.resolve();
  await other;
});

it('C3: a relay makes no dry run any more once somebody has deleted what could not be settled', async () => {
  // Each pass with a dry run first writes an entry of number 0. No rollback gives a number back.
  await admin.query('CREATE TABLE proofs (n BIGINT AUTO_INCREMENT PRIMARY KEY)');
  undo.push(() => admin.query('DROP TABLE proofs'));
  await admin.query(
    'CREATE TRIGGER counts BEFORE INSERT ON outbox_waiting FOR EACH ROW IF NEW.seq = 0 THEN INSERT INTO proofs VALUES (NULL); END IF',
  );
  undo.push(() => admin.query('DROP TRIGGER counts'));
  const proofs = async (): Promise<number> => {
    const [{ insertId }] = await admin.query<ResultSetHeader>('INSERT INTO proofs VALUES (NULL)');
    return insertId;
  };
  await trigger(REFUSE_BAD);
  await add(Step.message({ walk: 'bad', step: 1 }), Step.message({ walk: 'good', step: 1 }));
  let sent = 0;
  // The outbox is never empty: each message brings the next one.
  const publish = async () => {
    sent += 1;
    await add(Step.message({ walk: `good${sent}`, step: 1 }));
    return { kind: 'confirmed' as const };
  };
  const { logger, said } = listen();
  const relay = newRelay({ publisher: { ready: true, publish }, logger });
  relay.start();
  await expect.poll(() => said('cannot be settled'), PATIENCE).toBeGreaterThan(0);
  await admin.query("DELETE FROM outbox WHERE aggregateid = 'bad'");
  const proofsInFivePasses = async (): Promise<number> => {
    const [before, from] = [await proofs(), sent];
    await expect.poll(() => sent - from, PATIENCE).toBeGreaterThan(5);
    return (await proofs()) - before - 1;
  };
  await expect.poll(proofsInFivePasses, PATIENCE).toBe(0);
  await relay.stop();
});
