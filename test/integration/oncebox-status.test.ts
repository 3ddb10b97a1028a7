import { tmpdir } from 'node:os';
import { v7 as uuidv7 } from 'uuid';
import { describe, expect, it } from 'vitest';
import { dead, everybody, handled, run, schemas, shop, WRITTEN, written } from '../support/messages.ts';
import { startOncebox } from '../support/oncebox.ts';

describe('oncebox message', () => {
  const follow = async (id: string) => {
    const { code, stdout } = await run('message', id, '--json');
    return { code, ...JSON.parse(stdout) };
  };

  it('shows the whole path of a message', async () => {
    const id = await written({ attempts: 2 });
    await handled(id, 'customer-directory');
    await dead(id);
    const path = await follow(id);
    expect(path).toMatchObject({ code: 0, outbox: { schema: schemas.shop.name, state: 'published', attempts: 2 } });
    expect(path.outbox.publishedAt).toBe('2026-01-01T12:00:00.000000Z');
    expect(path.outbox).not.toHaveProperty('payload');
    expect(path.consumers).toMatchObject([
      { consumer: 'customer-directory', expected: true, handledAt: expect.stringMatching(/Z$/) },
      { consumer: 'welcome-email', expected: true, handledAt: null },
    ]);
    expect(path.deadLetters).toMatchObject([{ consumer: 'welcome-email', state: 'dead', attempts: 5 }]);

    const { stdout } = await run('message', id);
    expect(stdout).toMatch(/customer-directory +handled +20/);
    expect(stdout).toMatch(/welcome-email +not handled/);
    expect(stdout).toMatch(/dead letter \d+: dead/);
    expect(stdout).not.toContain('canary');
  });

  it('tells a message that was never there from one that retention may have removed', async () => {
    expect((await follow(uuidv7())).code).toBe(1);
    await shop.query('UPDATE outbox_partition SET forgotten_before = ?', [WRITTEN]);
    expect(await follow(uuidv7())).toMatchObject({ code: 3, outboxForgottenBefore: '2026-01-01T12:00:00.000000Z' });
    const removed = uuidv7();
    await handled(removed, 'welcome-email');
    expect(await follow(removed)).toMatchObject({
      code: 0,
      outbox: null,
      consumers: [{ consumer: 'welcome-email', expected: false }],
    });
  });
});

describe('oncebox status', () => {
  it('counts what each outbox and each consumer has in hand, and fails when a person is needed', async () => {
    const quietStatus = await run('status', '--json');
    expect(quietStatus.code).toBe(0);
    expect(JSON.parse(quietStatus.stdout).outboxes).toEqual(
      [schemas.shop.name, schemas.fulfilment.name].map((schema) => {
        return { schema, pending: 0, held: 0, parked: 0, released: 0, oldestSeconds: null };
      }),
    );

    for (const state of ['pending', 'pending', 'parked']) await written({ state });
    await written({ state: 'pending', held: 1 });
    const id = await written({ state: 'parked', held: 1 });
    await handled(id, ...everybody);
    await dead(id);
    await dead(id, 'replay');
    await dead(id, 'discarded');
    const { code, stdout } = await run('status', '--json');
    const { outboxes, consumers } = JSON.parse(stdout);
    expect(code).toBe(1);
    expect(outboxes[0]).toMatchObject({ pending: 2, held: 1, parked: 1, released: 1 });
    expect(outboxes[0].oldestSeconds).toBeGreaterThan(0);
    const schema = schemas.fulfilment.name;
    expect(consumers).toEqual([
      { schema, consumer: 'customer-directory', dead: 0, setAside: 0, replay: 0, handledLastHour: 1 },
      { schema, consumer: 'welcome-email', dead: 1, setAside: 0, replay: 1, handledLastHour: 1 },
    ]);
    const forPeople = (await run('status')).stdout;
    expect(forPeople).toMatch(/^OUTBOX +PENDING/);
    expect(forPeople).toMatch(/welcome-email +1 +0 +1 +1/);
  });
});

describe('oncebox', () => {
  it('says what to do when the environment names no outbox, or a database that is away or not migrated', async () => {
    const run = (urls: string) => startOncebox(['outbox', 'list'], { RELAY_DATABASE_URLS: urls }, tmpdir()).ended;
    const away = new URL(schemas.relayUrls.split(',')[0] ?? '');
    away.port = '1';
    expect(await run('')).toMatchObject({ code: 1, stderr: expect.stringContaining('ONCEBOX_NO_SCHEMA') });
    expect(await run(away.href)).toMatchObject({ code: 1, stderr: expect.stringContaining('ONCEBOX_DATABASE_AWAY') });
    const none = new URL(schemas.shop.adminUrl);
    none.pathname = '/mysql';
    expect(await run(none.href)).toMatchObject({ code: 1, stderr: expect.stringContaining('ONCEBOX_NOT_MIGRATED') });
  });
});
