import { createPool } from '@oncebox/mysql';
import { createRelay } from '@oncebox/outbox';
import { pino } from 'pino';
import { afterEach, expect, it, onTestFinished } from 'vitest';
import { cutAtCommit } from '../support/cut-at-commit.ts';
import { add, admin, newRelay, rows, Step, schemas, states, steps, useRelays } from '../support/walks.ts';

/**
 * A relay that may read and not settle must not send: each pass would send the same messages again.
 */

useRelays();

const PATIENCE = { timeout: 60_000, interval: 50 };
const relayUser = () => new URL(schemas.relayUrls.split(',')[0] ?? '').username;
const change = (verb: 'GRANT' | 'REVOKE', right: string, table: string) =>
  admin.query(`${verb} ${right} ON ??.?? ${verb === 'GRANT' ? 'TO' : 'FROM'} ?@'%'`, [
    schemas.shop.name,
    table,
    relayUser(),
  ]);

const undo: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const step of undo.splice(0)) await step();
});

/** Until the test ends. */
async function revoke(right: string, table: string): Promise<void> {
  undo.push(() => change('GRANT', right, table));
  await change('REVOKE', right, table);
}

/** What a relay has logged, and what its logger is. */
function listen() {
  const lines: string[] = [];
  const logger = pino({}, { write: (line: string) => void lines.push(line) });
  const said = (text: string): number => lines.filter((line) => line.includes(text)).length;
  return { logger, said };
}

const twenty = () => Array.from({ length: 20 }, (_, n) => Step.message({ walk: `w${n}`, step: 1 }));
const copies = () =>
  Math.max(0, ...Object.values(Object.groupBy(steps(), (step) => step)).map((all) => all?.length ?? 0));
const published = async () => (await states()).filter((state) => state.endsWith('published')).length;
const readiness = (relay: ReturnType<typeof newRelay>): string => {
  try {
    relay.assertDatabases();
    return 'ready';
  } catch (error) {
    return String(Reflect.get(Object(error), 'code'));
  }
};

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
  await admin.query(
    `CREATE TRIGGER refuses BEFORE UPDATE ON outbox FOR EACH ROW
       IF OLD.aggregateid = 'bad' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END IF`,
  );
  undo.push(() => admin.query('DROP TRIGGER IF EXISTS refuses'));
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
  await admin.query(
    `CREATE TRIGGER refuses BEFORE UPDATE ON outbox FOR EACH ROW
       IF OLD.aggregateid LIKE 'bad%' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END IF`,
  );
  undo.push(() => admin.query('DROP TRIGGER IF EXISTS refuses'));
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

it('C3: a trigger that fails over one message, in the words of a missing table, stops no other', async () => {
  await admin.query(
    `CREATE TRIGGER refuses BEFORE UPDATE ON outbox FOR EACH ROW
       IF OLD.aggregateid LIKE 'bad%' THEN INSERT INTO no_such_audit VALUES (1); END IF`,
  );
  undo.push(() => admin.query('DROP TRIGGER IF EXISTS refuses'));
  await add(Step.message({ walk: 'bad', step: 1 }), ...twenty());
  const { logger } = listen();
  const relay = newRelay({ logger });
  relay.start();
  await expect.poll(published, PATIENCE).toBe(20);
  expect(steps()).not.toContain('bad1');
});

it('C3: a trigger that refuses every message lets none be sent', async () => {
  await admin.query(
    "CREATE TRIGGER refuses BEFORE UPDATE ON outbox FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'",
  );
  undo.push(() => admin.query('DROP TRIGGER IF EXISTS refuses'));
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
