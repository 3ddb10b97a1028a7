import { createPool } from '@oncebox/mysql';
import { createRelay } from '@oncebox/outbox';
import { expect, it, onTestFinished } from 'vitest';
import {
  change,
  copies,
  listen,
  PATIENCE,
  published,
  readiness,
  revoke,
  trigger,
  twenty,
} from '../support/cannot-settle.ts';
import { cutAtCommit } from '../support/cut-at-commit.ts';
import { add, admin, newRelay, rows, Step, schemas, steps, useRelays } from '../support/walks.ts';

/**
 * A relay that may read and not settle must not send: each pass would send the same messages again.
 */

useRelays();

it.each([
  ['UPDATE', 'outbox', 24],
  ['INSERT', 'outbox_waiting', 24],
  ['UPDATE', 'outbox_waiting', 24],
  ['DELETE', 'outbox_waiting', 24],
  ['DELETE', 'outbox', 0],
] as const)(
  'C3: without %s on %s nothing is sent, and with it everything once (retention %i h)',
  async (right, table, retentionHours) => {
    await revoke(right, table);
    await add(...twenty());
    const { logger, said } = listen();
    const relay = newRelay({ logger, retentionHours });
    relay.start();
    await expect.poll(() => said('ONCEBOX_CANNOT_SETTLE'), PATIENCE).toBeGreaterThan(3);
    expect(said('1142')).toBeGreaterThan(0);
    expect(readiness(relay)).toBe('ONCEBOX_CANNOT_SETTLE');
    expect(steps()).toEqual([]);
    await change('GRANT', right, table);
    await expect.poll(() => steps().length, PATIENCE).toBe(20);
    await expect.poll(() => readiness(relay), PATIENCE).toBe('ready');
    expect(copies()).toBe(1);
  },
);

it('C3: a right that is revoked while the relay runs costs one copy at most, and slows no other schema', async () => {
  const other = createPool(schemas.fulfilment.adminUrl, { connections: 1 });
  onTestFinished(() => other.end());
  const { logger, said } = listen();
  const relay = newRelay({ logger, databaseUrls: schemas.relayUrls.split(',') });
  relay.start();
  await add(Step.message({ walk: 'first', step: 1 }));
  await expect.poll(steps, PATIENCE).toEqual(['first1']);
  await expect.poll(published, PATIENCE).toBe(1);
  await revoke('UPDATE', 'outbox');
  await add(...twenty());
  await expect.poll(() => said('ONCEBOX_CANNOT_SETTLE'), PATIENCE).toBeGreaterThan(3);
  expect(copies()).toBe(1);
  const insert = `INSERT INTO outbox (id, aggregatetype, aggregateid, type, version, payload, routing_key)
    VALUES (UUID(), 'walk', 'other', 'Step', 1, '{"walk":"other","step":1}', 'walk.step')`;
  await other.query(insert);
  await expect.poll(() => steps().includes('other1'), PATIENCE).toBe(true);
  await change('GRANT', 'UPDATE', 'outbox');
  await expect.poll(published, PATIENCE).toBe(21);
  await expect.poll(() => new Set(steps()).size, PATIENCE).toBe(22);
  expect(copies()).toBeLessThanOrEqual(2);
});

it('C3: a message that alone cannot be settled is not sent, its key waits, and the others go', async () => {
  await trigger(`IF OLD.aggregateid = 'bad' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END IF`);
  await add(Step.message({ walk: 'bad', step: 1 }), Step.message({ walk: 'bad', step: 2 }), ...twenty());
  const { logger, said } = listen();
  const relay = newRelay({ logger });
  relay.start();
  await expect.poll(published, PATIENCE).toBe(20);
  await expect.poll(() => said('ONCEBOX_CANNOT_SETTLE'), PATIENCE).toBeGreaterThan(0);
  await add(...twenty().map((_, n) => Step.message({ walk: `later${n}`, step: 1 })));
  await expect.poll(published, PATIENCE).toBe(40);
  expect(steps().filter((step) => step.startsWith('bad'))).toEqual([]);
  expect(readiness(relay)).toBe('ONCEBOX_CANNOT_SETTLE');
  await admin.query('DROP TRIGGER refuses');
  await expect.poll(published, PATIENCE).toBe(42);
  await expect.poll(() => steps().filter((step) => step.startsWith('bad')), PATIENCE).toEqual(['bad1', 'bad2']);
  expect(copies()).toBe(1);
});

it('C3: messages that cannot be settled, however many, starve no other and are not overtaken in their key', async () => {
  await trigger(`IF OLD.aggregateid LIKE 'bad%' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END IF`);
  const bad = Array.from({ length: 200 }, (_, n) =>
    Step.message({ walk: `bad${n % 50}`, step: 1 + Math.floor(n / 50) }),
  );
  await add(...bad, ...twenty());
  const relay = newRelay({ batch: 32 });
  relay.start();
  await expect.poll(published, PATIENCE).toBe(20);
  await add(Step.message({ walk: 'late', step: 1 }), Step.message({ walk: 'bad0', step: 5 }));
  await expect.poll(published, PATIENCE).toBe(21);
  expect(steps().filter((step) => step.startsWith('bad'))).toEqual([]);
  await admin.query('DROP TRIGGER refuses');
  await expect.poll(published, PATIENCE).toBe(222);
  await expect
    .poll(() => steps().filter((step) => /^bad0\d$/.test(step)), PATIENCE)
    .toEqual([1, 2, 3, 4, 5].map((step) => `bad0${step}`));
  expect(copies()).toBe(1);
});

it('C3: a trigger that refuses every message lets none be sent', async () => {
  await trigger("SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'");
  await add(...twenty());
  const { logger, said } = listen();
  const relay = newRelay({ logger });
  relay.start();
  await expect.poll(() => said('ONCEBOX_CANNOT_SETTLE'), PATIENCE).toBeGreaterThan(0);
  await expect.poll(() => readiness(relay), PATIENCE).toBe('ONCEBOX_CANNOT_SETTLE');
  await admin.query('DROP TRIGGER refuses');
  await expect.poll(published, PATIENCE).toBe(20);
  await expect.poll(() => steps().length, PATIENCE).toBe(20);
  expect(copies()).toBe(1);
});

it('C3: a server that loses every COMMIT lets nothing be sent', async () => {
  const [relayUrl = ''] = schemas.relayUrls.split(',');
  const lossy = await cutAtCommit(relayUrl, false);
  await add(...twenty());
  const { logger, said } = listen();
  let sent = 0;
  const publish = async () => {
    sent += 1;
    return { kind: 'confirmed' as const };
  };
  const relay = createRelay({ databaseUrls: [lossy.url], publisher: { ready: true, publish }, logger });
  relay.start();
  await expect.poll(() => said('ONCEBOX_COMMIT_UNKNOWN'), PATIENCE).toBeGreaterThan(3);
  await relay.stop();
  await lossy.close();
  expect(sent).toBe(0);
  expect((await rows()).map((row) => `${row['state']} ${row['attempts']}`)).toEqual(Array(20).fill('pending 0'));
});
