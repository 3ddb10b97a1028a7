import { tmpdir } from 'node:os';
import { createInbox, defineConsumer, on } from '@oncebox/inbox';
import { defineMessage } from '@oncebox/message';
import { transaction } from '@oncebox/mysql';
import { createRelay, outbox } from '@oncebox/outbox';
import { createPublisher } from '@oncebox/rabbitmq';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { consume, PATIENCE, quiet, vhost } from '../support/consumers.ts';
import {
  AFTER,
  BEFORE,
  dead,
  env,
  everybody,
  fulfilment,
  handled,
  register,
  run,
  schemas,
  shop,
  WRITTEN,
  written,
} from '../support/messages.ts';
import { startOncebox } from '../support/oncebox.ts';

const verify = async (...args: string[]) => {
  const { code, stdout } = await run('verify', '--json', ...args);
  return { code, ...JSON.parse(stdout) };
};

describe('oncebox verify', () => {
  it('proves it when relay, broker and worker have done their work', async () => {
    const Noted = defineMessage({
      type: 'Noted',
      version: 1,
      aggregateType: 'note',
      aggregateId: ({ note }) => note,
      routingKey: 'note.noted',
      payload: z.strictObject({ note: z.string() }),
    });
    const handlers = [on(Noted, { handle: async () => undefined })];
    const inbox = createInbox(fulfilment, defineConsumer({ name: 'reader', handlers }));
    await consume('reader', (message) => inbox.process(message), { routingKeys: ['note.noted'] });
    await register('reader', BEFORE, 'Noted');
    for (let note = 1; note <= 30; note++) {
      await transaction(shop, (tx) => outbox.add(tx, Noted.message({ note: String(note) })));
    }
    const publisher = createPublisher({ urls: [vhost.amqpUrl], name: 'relay', logger: quiet });
    await expect.poll(() => publisher.ready, PATIENCE).toBe(true);
    const relay = createRelay({ databaseUrls: schemas.relayUrls.split(','), publisher, logger: quiet });
    while ((await relay.runOnce()).length > 0);
    await relay.stop();
    await publisher.close();
    const handledNow = async () => (await fulfilment.query<RowDataPacket[]>('SELECT 1 FROM processed_messages'))[0];
    await expect.poll(async () => (await handledNow()).length, PATIENCE).toBe(30);

    const proof = await verify('--settled-for', '0s');
    expect(proof).toMatchObject({ code: 0, verdict: 'proven', checked: 30, findings: [], unclaimed: {} });
    await fulfilment.query('DELETE FROM processed_messages LIMIT 1');
    const missing = await verify('--settled-for', '0s');
    expect(missing).toMatchObject({ code: 1, verdict: 'missing', counts: { 'not handled': 1 } });
  });

  it('names the message and the consumer that did not handle it', async () => {
    const [fine, lost] = [await written(), await written()];
    await handled(fine, ...everybody);
    await handled(lost, 'welcome-email');
    const answer = await verify();
    expect(answer).toMatchObject({ code: 1, verdict: 'missing', checked: 2, counts: { 'not handled': 1 } });
    expect(answer.findings).toEqual([
      {
        schema: schemas.shop.name,
        id: lost,
        type: 'CustomerCreated',
        problem: 'not handled',
        consumer: `${schemas.fulfilment.name}/customer-directory`,
        reason: null,
        createdAt: '2026-01-01T12:00:00.000000Z',
      },
    ]);
    const forPeople = await run('verify');
    expect(forPeople).toMatchObject({ code: 1, stdout: expect.stringContaining('\nMissing: ') });
    expect(forPeople.stdout).not.toContain('canary');
  });

  it('names what is not published, and why', async () => {
    const pending = await written({ state: 'pending' });
    const held = await written({ state: 'pending', held: 1, last_error: 'returned: NO_ROUTE' });
    const parked = await written({ state: 'parked', held: 1, last_error: 'ONCEBOX_INVALID_HEADERS' });
    const released = await written({ state: 'parked', last_error: 'too large' });
    const answer = await verify();
    expect(answer.code).toBe(1);
    expect(answer.findings).toMatchObject([
      { id: pending, problem: 'pending', reason: null },
      { id: held, problem: 'held', reason: 'returned: NO_ROUTE' },
      { id: parked, problem: 'parked', reason: 'ONCEBOX_INVALID_HEADERS' },
      { id: released, problem: 'released', reason: 'too large' },
    ]);
  });

  it.each(['dead', 'replay', 'discarded'])(
    'names a message that is %s at a consumer, with the reason',
    async (state) => {
      const id = await written();
      await handled(id, 'customer-directory');
      await dead(id, state);
      const answer = await verify();
      const consumer = `${schemas.fulfilment.name}/welcome-email`;
      expect(answer.code).toBe(1);
      expect(answer.findings).toMatchObject([{ id, problem: state, consumer, reason: 'ONCEBOX_INVALID_PAYLOAD' }]);
    },
  );

  it('takes a dead letter that was handled after its replay for handled, and one that was not for missing', async () => {
    const [done, lost] = [await written(), await written()];
    await handled(done, ...everybody);
    await handled(lost, 'customer-directory');
    for (const id of [done, lost]) await dead(id, 'replayed');
    expect((await verify()).findings).toMatchObject([{ id: lost, problem: 'not handled' }]);
  });

  it('expects a consumer to handle what was written since it registered, and nothing of other types', async () => {
    await fulfilment.query(
      "UPDATE consumers SET since = '2026-01-01 12:00:00.000001' WHERE consumer = 'welcome-email'",
    );
    const before = await written();
    const after = await written({ created_at: '2026-01-01 12:00:00.000001' });
    const other = await written({ type: 'OrderPlaced' });
    await handled(before, 'customer-directory');
    await handled(after, 'customer-directory');
    const answer = await verify();
    expect(answer.findings).toMatchObject([{ id: after, problem: 'not handled' }]);
    expect(answer.unclaimed).toEqual({ OrderPlaced: 1 });
    expect(answer.findings).not.toContainEqual(expect.objectContaining({ id: other }));
  });

  it('K2: names what a consumer has handled, or has as a dead letter, and no outbox has', async () => {
    await handled(await written(), ...everybody);
    const [gone, given] = [uuidv7(), uuidv7()];
    await handled(gone, 'welcome-email');
    await dead(given);
    await fulfilment.query('UPDATE dead_letters SET occurred_at = ?', [AFTER]);
    const answer = await verify('--closed');
    expect(answer).toMatchObject({ code: 1, verdict: 'missing', checked: 1, counts: { 'in no outbox': 2 } });
    const consumer = `${schemas.fulfilment.name}/welcome-email`;
    expect(answer.findings).toMatchObject([
      { id: gone, schema: null, type: null, problem: 'in no outbox', consumer },
      {
        id: given,
        schema: null,
        type: 'CustomerCreated',
        problem: 'in no outbox',
        createdAt: '2026-01-01T13:00:00.000000Z',
      },
    ]);
    expect((await run('verify')).stdout).toContain('in no outbox');
    expect((await run('message', gone)).stdout).toContain('came back from an older backup');
    // Another program may have sent it; or the outboxes of the others are not looked into.
    expect(await verify()).toMatchObject({ code: 0, verdict: 'proven', counts: { 'in no outbox': 2 } });
    expect((await verify('--schema', schemas.fulfilment.name)).counts).toEqual({});
  });

  it('K2: does not name what retention may have removed, by whichever clock, and no id that tells no time', async () => {
    const before = uuidv7({ msecs: Date.parse('2026-01-01T12:59:59Z') });
    // By the clock of its writer, which is ahead by less than a minute, or by more; the second was handled in time.
    const [ahead, farAhead] = ['2026-01-01T13:00:30Z', '2026-01-01T18:00Z'].map((at) =>
      uuidv7({ msecs: Date.parse(at) }),
    );
    const after = uuidv7({ msecs: Date.parse('2026-01-01T13:02Z') });
    for (const id of [before, ahead ?? '', farAhead ?? '', 'order-4711', after]) await handled(id, 'welcome-email');
    await fulfilment.query('UPDATE processed_messages SET processed_at = ? WHERE message_id = ?', [WRITTEN, farAhead]);
    await shop.query('UPDATE outbox_partition SET forgotten_before = ? WHERE partition_id = 7', [AFTER]);
    const found = { findings: [{ id: after, problem: 'in no outbox' }], counts: { 'in no outbox': 1 } };
    expect(await verify()).toMatchObject(found);
    expect(await verify('--since', '2026-01-01T13:03Z')).toMatchObject({ code: 0, counts: {} });
  });

  it('K2: says of a message that is not published when an inbox may have forgotten it: it may have been handled before', async () => {
    const [old, had] = [await written({ state: 'pending' }), await written({ state: 'pending' })];
    const young = await written({ state: 'pending', created_at: AFTER });
    await handled(had, ...everybody);
    await handled(old, 'welcome-email');
    await fulfilment.query("UPDATE retention SET forgotten_before = ? WHERE name = 'processed_messages'", [AFTER]);
    expect((await verify()).findings).toMatchObject([
      { id: old, problem: 'pending', reason: expect.stringContaining('may have been handled') },
      { id: had, problem: 'pending', reason: null },
      { id: young, problem: 'pending', reason: null },
    ]);
  });

  it('tells what waits in the hand of an ordered consumer from what is lost', async () => {
    const [waits, lost] = [await written(), await written()];
    for (const id of [waits, lost]) await handled(id, 'customer-directory');
    await fulfilment.query(
      `INSERT INTO held_messages (consumer, ordering_key, message_id, routing_key, properties, body)
       VALUES ('welcome-email', 'c1', ?, 'customer.created', '{}', '{}')`,
      [waits],
    );
    expect((await verify()).findings).toMatchObject([
      { id: waits, problem: 'held' },
      { id: lost, problem: 'not handled' },
    ]);
    expect((await run('verify')).stdout).toContain('oncebox outbox republish --id');
  });

  it('needs nobody to handle an optional message', async () => {
    await written({ delivery: 'optional' });
    expect(await verify()).toMatchObject({ code: 0, verdict: 'proven', unclaimed: {} });
  });

  it('calls what was written or published a moment ago in flight, and not missing', async () => {
    await shop.query(
      `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload) VALUES (?, 'customer', 'c', 'CustomerCreated', '{}')`,
      [uuidv7()],
    );
    const published = await written();
    await shop.query('UPDATE outbox SET published_at = UTC_TIMESTAMP(6) WHERE id = ?', [published]);
    const answer = await verify('--settled-for', '1h');
    expect(answer).toMatchObject({ code: 0, verdict: 'proven', checked: 2, counts: { 'in flight': 3 } });
    expect((await verify('--settled-for', '0s')).counts).toEqual({ pending: 1, 'not handled': 2 });
  });

  it('does not call fine what retention has removed from an outbox, and proves what is younger', async () => {
    await handled(await written({ created_at: AFTER }), ...everybody);
    await shop.query('UPDATE outbox_partition SET forgotten_before = ? WHERE partition_id = 7', [WRITTEN]);
    const answer = await verify();
    expect(answer).toMatchObject({ code: 3, verdict: 'unknowable', unknowableBefore: '2026-01-01T12:00:00.000000Z' });
    expect((await run('verify')).stdout).toContain('Unknowable before 2026-01-01T12:00:00.000000Z');
    expect((await verify('--since', '2026-01-01T11:59Z')).code).toBe(3);
    expect(await verify('--since', '2026-01-01T12:00Z')).toMatchObject({ code: 0, verdict: 'proven', checked: 1 });
  });

  it('does not call missing, nor fine, what an inbox may have forgotten', async () => {
    const old = await written();
    const young = await written({ created_at: AFTER });
    await handled(young, ...everybody);
    await handled(old, 'welcome-email');
    await fulfilment.query("UPDATE retention SET forgotten_before = ? WHERE name = 'processed_messages'", [AFTER]);
    const answer = await verify();
    expect(answer).toMatchObject({ code: 3, verdict: 'unknowable', counts: { unknowable: 1 } });
    expect(answer.findings).toMatchObject([{ id: old, problem: 'unknowable' }]);
    // What is missing for certain counts for more.
    const lost = await written({ created_at: AFTER });
    expect(await verify()).toMatchObject({ code: 1, counts: { unknowable: 1, 'not handled': 2 } });
    await handled(lost, ...everybody);
    await handled(old, 'customer-directory');
    expect(await verify()).toMatchObject({ code: 0, verdict: 'proven' });
  });

  it('I16: does not call missing a message whose dead letter the retention may have deleted', async () => {
    const id = await written();
    await handled(id, 'customer-directory');
    await dead(id, 'discarded');
    expect(await verify()).toMatchObject({ code: 1, counts: { discarded: 1 } });
    await fulfilment.query('DELETE FROM dead_letters');
    await fulfilment.query("UPDATE retention SET forgotten_before = ? WHERE name = 'dead_letters'", [AFTER]);
    expect(await verify()).toMatchObject({ code: 3, verdict: 'unknowable', counts: { unknowable: 1 } });
    const lost = await written({ created_at: AFTER });
    expect((await verify()).findings).toContainEqual(expect.objectContaining({ id: lost, problem: 'not handled' }));
  });

  it('looks at what was written since a time alone', async () => {
    await written({ state: 'parked' });
    expect((await verify('--since', '2026-01-01T12:00Z')).code).toBe(1);
    expect(await verify('--since', '2026-01-01T12:00:01Z')).toMatchObject({ code: 0, checked: 0 });
    expect(await verify('--since', '1h')).toMatchObject({ code: 0, checked: 0 });
  });

  it('counts all that is missing and names as many as asked', async () => {
    for (let count = 0; count < 5; count++) await written();
    const answer = await verify('--limit', '3');
    expect(answer.counts).toEqual({ 'not handled': 10 });
    expect(answer.findings).toHaveLength(3);
  });

  it('compares more messages than a page holds', async () => {
    const rows = Array.from({ length: 2_500 }, (_, index) => [uuidv7(), `c${index}`]);
    await shop.query(
      `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, state, created_at, published_at) VALUES ${rows
        .map(() => `(?, 'customer', ?, 'CustomerCreated', '{}', 'published', '${WRITTEN}', '${WRITTEN}')`)
        .join(', ')}`,
      rows.flat(),
    );
    for (const consumer of everybody) {
      await fulfilment.query('INSERT INTO processed_messages (consumer, message_id) VALUES ?', [
        rows.map(([id]) => [consumer, id]),
      ]);
    }
    expect(await verify()).toMatchObject({ code: 0, checked: 2_500 });
    await fulfilment.query('DELETE FROM processed_messages WHERE message_id IN (?)', [
      [rows[999]?.[0], rows[2_499]?.[0]],
    ]);
    expect((await verify()).findings.map((finding: { id: string }) => finding.id)).toEqual([
      rows[999]?.[0],
      rows[999]?.[0],
      rows[2_499]?.[0],
      rows[2_499]?.[0],
    ]);
  });

  it('refuses to prove half of it when no schema of consumers is given', async () => {
    const { RELAY_DATABASE_URLS = '' } = env;
    const ended = await startOncebox(['verify'], { RELAY_DATABASE_URLS }, tmpdir()).ended;
    expect(ended).toMatchObject({ code: 1, stderr: expect.stringContaining('ONCEBOX_NO_SCHEMA') });
    const named = { RELAY_DATABASE_URLS, BILLING_DATABASE_URL: schemas.fulfilment.url };
    const proven = await startOncebox(['verify', '--service', 'BILLING_DATABASE_URL'], named, tmpdir()).ended;
    expect(proven.code).toBe(0);
  });
});
