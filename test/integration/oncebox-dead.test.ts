import { tmpdir } from 'node:os';
import { createPool, type Pool } from '@oncebox/mysql';
import type { ResultSetHeader, RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { type Ended, startOncebox } from '../support/oncebox.ts';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

const CANARY = 'canary@example.com';

let schemas: TestSchemas;
let admin: Pool;
let env: Record<string, string>;

beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  admin = createPool(schemas.fulfilment.adminUrl, { connections: 2 });
});
beforeEach(async () => {
  env = { WORKER_DATABASE_URL: schemas.fulfilment.url };
  await admin.query('DELETE FROM dead_letters');
  await admin.query('UPDATE retention SET forgotten_before = NULL');
});
afterAll(async () => {
  await admin.end();
  await schemas.drop();
});

const oncebox = (...args: string[]): Promise<Ended> => startOncebox(['dead', ...args], env, tmpdir()).ended;
const asJson = async (...args: string[]) => JSON.parse((await oncebox(...args, '--json')).stdout);

/** A dead letter as a worker writes it. @returns its number. */
async function dead(change: Record<string, string | number | null> = {}, schema = schemas.fulfilment.name) {
  const row = {
    consumer: 'welcome-email',
    message_id: uuidv7(),
    type: 'CustomerCreated',
    version: 1,
    routing_key: 'customer.created',
    properties: JSON.stringify({ headers: { note: CANARY } }),
    body: JSON.stringify({ email: CANARY }),
    reason: 'ONCEBOX_INVALID_PAYLOAD',
    attempts: 5,
    copy_hash: uuidv7().replaceAll('-', ''),
    ...change,
  };
  const [{ insertId }] = await admin.query<ResultSetHeader>('INSERT INTO ??.dead_letters (??) VALUES (?)', [
    schema,
    Object.keys(row),
    Object.values(row),
  ]);
  return String(insertId);
}

async function states(): Promise<Record<string, string>> {
  const [rows] = await admin.query<RowDataPacket[]>('SELECT id, state FROM dead_letters');
  return Object.fromEntries(rows.map(({ id, state }) => [String(id), state]));
}

describe('oncebox dead', () => {
  it('lists dead letters by consumer, type, reason, state and age', async () => {
    const first = await dead();
    const other = await dead({ consumer: 'customer-directory', type: 'CustomerUpdated' });
    const failed = await dead({ reason: 'TypeError at 100% of it', created_at: '2020-01-01' });
    const sent = await dead({ state: 'replayed' });
    const ids = async (...filter: string[]) =>
      (await asJson('list', ...filter)).map((letter: { id: string }) => letter.id);
    expect(await ids()).toEqual([first, other, failed]);
    expect(await ids('--consumer', 'customer-directory')).toEqual([other]);
    expect(await ids('--type', 'CustomerUpdated')).toEqual([other]);
    expect(await ids('--reason', '100%')).toEqual([failed]);
    expect(await ids('--older-than', '1d')).toEqual([failed]);
    expect(await ids('--newer-than', '1d', '--limit', '1')).toEqual([first]);
    expect(await ids('--state', 'replayed')).toEqual([sent]);

    const forPeople = await oncebox('list', '--limit', '2');
    expect(forPeople).toMatchObject({ code: 0, stderr: '' });
    expect(forPeople.stdout).toMatch(/^SCHEMA +ID +CONSUMER +TYPE/);
    expect(forPeople.stdout).toContain('There are more');
    expect(forPeople.stdout).not.toContain(CANARY);
  });

  it('shows one, and what the message says only when asked', async () => {
    const id = await dead();
    const shown = await oncebox('show', id);
    expect(shown.stdout).toContain('ONCEBOX_INVALID_PAYLOAD');
    expect(shown.stdout).not.toContain(CANARY);
    expect(await asJson('show', id, '--payload')).toMatchObject({
      schema: schemas.fulfilment.name,
      id,
      body: JSON.stringify({ email: CANARY }),
      properties: expect.stringContaining(CANARY),
    });
    const binary = await dead();
    await admin.query("UPDATE dead_letters SET body = X'FF00' WHERE id = ?", [binary]);
    expect((await asJson('show', binary, '--payload')).body).toBe('/wA=');
    expect(await oncebox('show', '999999')).toMatchObject({ code: 1, stdout: '' });
  });

  it('marks for replay what its id or filters choose, and nothing else', async () => {
    const [one, two, other] = [await dead(), await dead(), await dead({ consumer: 'customer-directory' })];
    const discarded = await dead({ state: 'discarded' });
    expect(await asJson('replay', one)).toMatchObject({ counts: { replay: 1 } });
    expect(await states()).toEqual({ [one]: 'replay', [two]: 'dead', [other]: 'dead', [discarded]: 'discarded' });
    expect(await asJson('replay', one)).toMatchObject({ counts: { waiting: 1 } });

    const answer = await oncebox('replay', '--consumer', 'welcome-email');
    expect(answer).toMatchObject({ code: 0, stdout: expect.stringContaining('sent again by its worker') });
    expect(await states()).toEqual({ [one]: 'replay', [two]: 'replay', [other]: 'dead', [discarded]: 'discarded' });
  });

  it('shows what it would do with --dry-run, and stops at --limit', async () => {
    const ids = [await dead(), await dead(), await dead()];
    const dry = await asJson('replay', '--all', '--dry-run');
    expect(dry.messages.map((message: { id: string }) => message.id)).toEqual(ids);
    expect(dry.counts).toEqual({ 'would change': 3 });
    expect(Object.values(await states())).toEqual(['dead', 'dead', 'dead']);
    expect((await asJson('replay', '--all', '--limit', '2')).counts).toEqual({ replay: 2 });
    expect(Object.values(await states())).toEqual(['replay', 'replay', 'dead']);
  });

  it('marks in pages of --rate, all that match', async () => {
    for (let count = 0; count < 5; count++) await dead();
    const ended = await oncebox('replay', '--all', '--rate', '2', '--json');
    expect(JSON.parse(ended.stdout).counts).toEqual({ replay: 5 });
    // A page is one transaction and one moment, and there is a line of progress after each but the first.
    const [pages] = await admin.query<RowDataPacket[]>(
      'SELECT COUNT(*) AS n FROM dead_letters GROUP BY updated_at ORDER BY updated_at',
    );
    expect(pages.map(({ n }) => n)).toEqual([2, 2, 1]);
    expect(ended.stderr.trim().split('\n')).toHaveLength(2);
  });

  it('refuses what the inbox may have handled and forgotten, unless forced, and a message without an id always', async () => {
    const old = await dead({ occurred_at: '2026-01-01 11:59:59' });
    const recent = await dead({ occurred_at: '2026-01-01 12:00:00' });
    const undated = await dead({ created_at: '2026-01-01 11:00:00' });
    const nameless = await dead({ message_id: null });
    await admin.query(
      "UPDATE retention SET forgotten_before = '2026-01-01 12:00:00' WHERE name = 'processed_messages'",
    );

    const dry = await asJson('replay', '--all', '--dry-run');
    expect(dry.counts).toEqual({ forgotten: 2, 'would change': 1, 'no id': 1 });
    const refused = await oncebox('replay', '--all');
    expect(refused).toMatchObject({ code: 1, stdout: expect.stringContaining('older than what the inbox remembers') });
    expect(await states()).toEqual({ [old]: 'dead', [recent]: 'replay', [undated]: 'dead', [nameless]: 'dead' });
    expect((await oncebox('replay', old, undated, '--force')).code).toBe(0);
    expect((await oncebox('replay', nameless, '--force')).code).toBe(1);
    expect(await states()).toEqual({ [old]: 'replay', [recent]: 'replay', [undated]: 'replay', [nameless]: 'dead' });
  });

  it('discards for good, and leaves alone what was sent again', async () => {
    const [one, sent] = [await dead(), await dead({ state: 'replayed' })];
    const { code, stdout } = await oncebox('discard', one, sent, '--json');
    expect(code).toBe(1);
    expect(JSON.parse(stdout).messages).toEqual([
      { schema: schemas.fulfilment.name, id: one, outcome: 'discarded' },
      { schema: schemas.fulfilment.name, id: sent, outcome: 'replayed' },
    ]);
    expect(await states()).toEqual({ [one]: 'discarded', [sent]: 'replayed' });
    expect((await oncebox('discard', '999999')).code).toBe(1);
  });

  it('asks which schema is meant when several have a dead letter of that number', async () => {
    const id = await dead();
    await dead({ id }, schemas.shop.name);
    env['BILLING_DATABASE_URL'] = schemas.shop.url;
    const ambiguous = await oncebox('discard', id, '--service', 'BILLING_DATABASE_URL');
    expect(ambiguous).toMatchObject({ code: 2, stderr: expect.stringContaining('--schema') });
    const chosen = ['--service', 'BILLING_DATABASE_URL', '--schema', schemas.shop.name];
    expect((await asJson('discard', id, ...chosen)).messages[0].schema).toBe(schemas.shop.name);
    expect(await states()).toEqual({ [id]: 'dead' });
  });

  it.each([
    ['a replay of nothing in particular', ['replay'], 'Give ids, or filters, or --all'],
    ['the id of a message', ['show', uuidv7()], 'oncebox message <id>'],
    ['a schema that no URL names', ['list', '--schema', 'nowhere'], 'no URL'],
  ])('says what is wrong with %s', async (_case, args, message) => {
    const ended = await oncebox(...args);
    expect(ended).toMatchObject({ code: 2, stdout: '' });
    expect(ended.stderr.split('\n')[0]).toContain(message);
  });
});
