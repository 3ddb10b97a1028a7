import { tmpdir } from 'node:os';
import { createInbox, defineConsumer, NonRetryableError, on } from '@oncebox/inbox';
import type { Inbox } from '@oncebox/message';
import { createPool, type Pool } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { newName, PATIENCE, vhost } from '../support/consumers.ts';
import { createDatabase } from '../support/database.ts';
import {
  checkedBy,
  consumeWith,
  fail,
  type Handle,
  inboxFor,
  letters,
  pool,
  publish,
  schemas,
} from '../support/dead-letters.ts';
import { connectForeign, type Fields, type Sender, value } from '../support/foreign.ts';
import { startOncebox } from '../support/oncebox.ts';
import { createSchemas } from '../support/schemas.ts';

/** Dead letters that other programs' messages become, and what of them no column holds. */

let foreign: Sender;
let admin: Pool;
beforeAll(async () => {
  foreign = await connectForeign();
  admin = createPool(schemas.fulfilment.adminUrl, { connections: 2 });
});
afterAll(async () => {
  await foreign.close();
  await admin.end();
});

const giveUp: Handle = async () => {
  throw new NonRetryableError('someone@example.org');
};

function orderedInbox(name: string, handle: Handle, database: Pool = pool): Inbox {
  const handlers = [on(checkedBy(name), { handle: (_tx, message) => handle(message) })];
  return createInbox(
    database,
    defineConsumer({ name, handlers, retryDelaysMs: [50], ordered: true, whenDead: 'continue' }),
  );
}
const KINDS: [string, (name: string, handle: Handle, database?: Pool) => Inbox][] = [
  ['an unordered consumer', inboxFor],
  ['an ordered consumer', orderedInbox],
];

const version: Fields[number] = ['schemaversion', value.I(1)];
/** Headers of which something is more than a column holds. */
const ODD: readonly Fields[] = [
  [version, ['cloudEvents:time', value.S('+275760-09-13T00:00:00.000Z')]],
  [version, ['cloudEvents:time', value.S('-000001-01-01T00:00:00.000Z')]],
  [version, ['cloudEvents:time', value.S('0001-01-01T00:00:00.000Z')]],
  [['schemaversion', value.l(2n ** 32n)]],
  [['schemaversion', value.d(2 ** 31 + 0.5)]],
  [version, ['x-oncebox-routing-key', value.S('k'.repeat(300))]],
  [version, ['x-oncebox-attempts', value.l(2n ** 60n)]],
  [version, ['x-oncebox-first-failure', value.S(`+275760-09-13T00:00:00.000Z${' '.repeat(20_000)}`)]],
];

test.each(KINDS)('E1: %s keeps each dead letter, whatever its headers say of it', async (_, inboxOf) => {
  const name = newName();
  await consumeWith(inboxOf(name, giveUp));
  const ids = ODD.map((headers) => {
    const messageId = uuidv7();
    const subject: Fields[number] = ['cloudEvents:subject', value.S(messageId)];
    foreign.send(
      { exchange: 'oncebox.events', routingKey: `${name}.checked` },
      { messageId, type: 'Checked', headers: [...headers, subject] },
    );
    return messageId;
  });
  const last = publish(name);
  await expect
    .poll(async () => (await letters(name)).map((row) => row['message']).toSorted(), PATIENCE)
    .toEqual([...ids, last].toSorted());
  expect(await vhost.depth(`${name}.dead`)).toBe(0);
});

/** What a program may put into a dead queue by itself. */
const NOTES: readonly Fields[] = [
  [['x-oncebox-reason', value.S('r'.repeat(60_000))]],
  [['x-oncebox-error-class', value.S('c'.repeat(60_000))]],
  [['x-oncebox-attempts', value.l(2n ** 60n)]],
  [['x-oncebox-attempts', value.d(-0.5)]],
  [['x-oncebox-last-failure', value.S('+275760-09-13T00:00:00.000Z')]],
  [['x-oncebox-set-aside', value.S('f'.repeat(64))]],
  [['x-oncebox-reason', value.S('ONCEBOX_UNSTORABLE: forged')]],
  [['x-oncebox-wrapped', value.I(1)]],
  [['nested', Array.from({ length: 5_000 }).reduce<Buffer>((inner) => value.A([inner]), value.V())]],
  [['unsigned by its name', Buffer.concat([Buffer.from('L'), Buffer.alloc(8, 0xff)])]],
  [['__proto__', value.F([['schemaversion', value.I(1)]])]],
];

test.each(KINDS)(
  'E1: whatever lies in the dead queue of %s becomes a dead letter, and what comes behind it too',
  async (_, inboxOf) => {
    const name = newName();
    await consumeWith(inboxOf(name, giveUp));
    const deathOf = (time: bigint): Fields => [
      [
        'x-death',
        value.A([
          value.F([
            ['queue', value.S(name)],
            ['reason', value.S('r'.repeat(9_000))],
            ['count', value.l(2n ** 62n)],
            ['time', value.T(time)],
            ['routing-keys', value.A([value.S('k'.repeat(400))])],
          ]),
        ]),
      ],
    ];
    const given = [...NOTES, deathOf(2n ** 62n), deathOf(0n)];
    const bodies = given.map((headers, at) => {
      const body = Buffer.from(`${at}`);
      foreign.send({ exchange: '', routingKey: `${name}.dead` }, { messageId: `forged ${at}`, headers }, body);
      return body.toString();
    });
    await expect
      .poll(async () => (await letters(name)).map((row) => row['body'].toString()).toSorted(), PATIENCE)
      .toEqual(bodies.toSorted());
    for (const row of await letters(name))
      expect(row).toMatchObject({ state: 'dead', reason: expect.stringMatching(/./) });
    expect((await letters(name)).filter(({ reason }) => reason.startsWith('ONCEBOX_UNSTORABLE'))).toEqual([]);
    const last = publish(name);
    await expect.poll(async () => (await letters(name)).map((row) => row['message']), PATIENCE).toContain(last);
  },
);

describe('what the table refuses', () => {
  const status = async (environment: Record<string, string> = { AMQP_URL: vhost.amqpUrl }) => {
    const { stdout } = await startOncebox(
      ['status', '--json'],
      { WORKER_DATABASE_URL: schemas.fulfilment.url, ...environment },
      tmpdir(),
    ).ended;
    const consumers: { consumer: string; dead: number; setAside: number }[] = JSON.parse(stdout).consumers;
    return (name: string) => consumers.find(({ consumer }) => consumer === name);
  };
  /** Refuses by a condition on NEW. */
  const refuse = async (trigger: string, condition: string) => {
    await admin.query(
      `CREATE TRIGGER ${trigger} BEFORE INSERT ON dead_letters FOR EACH ROW
         IF ${condition} THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'quotes someone@example.org'; END IF`,
    );
    return () => admin.query(`DROP TRIGGER ${trigger}`);
  };

  test.each(KINDS)('E1: is set aside by %s, in nobody’s way, and comes back by a command', async (_, inboxOf) => {
    const name = newName();
    const trigger = `refuses_${name.slice(2, 10)}_${name.slice(-4)}`;
    const allow = await refuse(trigger, `NEW.consumer = '${name}' AND NEW.body LIKE '%refuse%'`);
    await consumeWith(inboxOf(name, giveUp));
    for (let i = 0; i < 7; i++)
      foreign.send(
        { exchange: '', routingKey: `${name}.dead` },
        { messageId: `r${i}`, type: 'Checked', headers: [version, ['big', value.l(2n ** 62n + 1n)]] },
        Buffer.from('"refuse"'),
      );
    const innocent = publish(name);
    await expect.poll(async () => (await letters(name)).map((row) => row['message']), PATIENCE).toContain(innocent);
    await expect.poll(() => vhost.depth(`${name}.set-aside`), PATIENCE).toBe(7);
    await expect.poll(() => vhost.depth(`${name}.dead`), PATIENCE).toBe(0);
    const stubs = (await letters(name)).filter((row) => row['message'] !== innocent);
    expect(stubs).toHaveLength(7);
    for (const stub of stubs) {
      expect(stub['reason']).toMatch(
        new RegExp(
          `^ONCEBOX_UNSTORABLE: the message is in the queue ${name}.set-aside, because the table refuses it: ER_SIGNAL_EXCEPTION 1644`,
        ),
      );
      expect(stub['body']).toHaveLength(0);
    }
    expect((await status())(name)).toMatchObject({ dead: 8, setAside: 7 });
    expect((await status({}))(name)).toMatchObject({ dead: 8, setAside: 7 });

    // A stub has nothing to send, by the command or by hand.
    const replay = await startOncebox(
      ['dead', 'replay', String(stubs[0]?.['id']), '--json'],
      { WORKER_DATABASE_URL: schemas.fulfilment.url },
      tmpdir(),
    ).ended;
    expect(JSON.parse(replay.stdout).counts).toEqual({ 'set aside': 1 });
    await pool.query("UPDATE dead_letters SET state = 'replay' WHERE id = ?", [stubs[0]?.['id']]);
    await expect
      .poll(async () => (await letters(name)).find((row) => row['id'] === stubs[0]?.['id'])?.['state'], PATIENCE)
      .toBe('dead');

    await allow();
    const back = await startOncebox(['dead', 'bring-back', name, '--json'], { AMQP_URL: vhost.amqpUrl }, tmpdir())
      .ended;
    expect(JSON.parse(back.stdout)).toEqual({ consumer: name, moved: 7 });
    const whole = async () => (await letters(name)).filter((row) => row['body'].toString() === '"refuse"');
    await expect.poll(whole, PATIENCE).toHaveLength(7);
    expect((await whole()).map((row) => row['id']).toSorted()).toEqual(stubs.map((row) => row['id']).toSorted());
    for (const row of await whole()) expect(row['reason']).toMatch(/^unknown: it came to/);
    expect(JSON.parse((await whole())[0]?.['properties']).bytes).toMatch(/./);
    expect((await status())(name)).toMatchObject({ dead: 8, setAside: 0 });
  });

  test('E1: is seen by status though not even a stub is taken, and beside it the dead letters of another consumer are kept', async () => {
    const [name, other] = [newName(), newName()];
    const allow = await refuse(`refuses_all_${name.slice(2, 10)}`, `NEW.consumer = '${name}'`);
    await consumeWith(inboxFor(name, giveUp));
    await consumeWith(inboxFor(other, giveUp));
    const id = publish(name);
    publish(other);
    await expect.poll(() => vhost.depth(`${name}.set-aside`), PATIENCE).toBe(1);
    await expect.poll(() => letters(other), PATIENCE).toHaveLength(1);
    expect(await letters(name)).toEqual([]);
    expect((await status())(name)).toMatchObject({ dead: 0, setAside: 1 });
    await allow();
    await startOncebox(['dead', 'bring-back', name], { AMQP_URL: vhost.amqpUrl }, tmpdir()).ended;
    await expect
      .poll(() => letters(name), PATIENCE)
      .toMatchObject([{ message: id, reason: 'NonRetryableError', attempts: 1 }]);
  });

  test('E1: of a message that an ordered consumer cannot hold its key goes on, and the reason says so', async () => {
    const name = newName();
    const [bad, next] = [uuidv7(), uuidv7()];
    await admin.query(
      `CREATE TRIGGER holds_${name.slice(2, 10)} BEFORE INSERT ON held_messages FOR EACH ROW
         IF NEW.message_id = '${bad}' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END IF`,
    );
    const seen: string[] = [];
    await consumeWith(
      orderedInbox(name, async (message) => {
        if (message.id === bad) await fail();
        seen.push(message.id);
      }),
    );
    const headers: Fields = [version, ['cloudEvents:subject', value.S('one key')]];
    for (const messageId of [bad, next])
      foreign.send(
        { exchange: 'oncebox.events', routingKey: `${name}.checked` },
        { messageId, type: 'Checked', headers },
      );
    await expect.poll(() => letters(name), PATIENCE).toHaveLength(1);
    expect(await letters(name)).toMatchObject([
      {
        message: bad,
        reason: expect.stringMatching(/ONCEBOX_NOT_HELD: OrderError E_ORDER; .*its key went on without it/),
      },
    ]);
    await expect.poll(() => seen, PATIENCE).toEqual([next]);
  });
});

test.each(KINDS)(
  'E1: a body over max_allowed_packet is set aside by %s, and is handled once the server takes it',
  { timeout: 120_000 },
  async (_, inboxOf) => {
    const database = await createDatabase(['--max-allowed-packet=1M']);
    const own = await createSchemas(database);
    const small = createPool(own.fulfilment.url, { connections: 5 });
    const root = createPool(database.databaseUrl, { connections: 1 });
    const rows = async () => {
      const [found] = await root.query<RowDataPacket[]>(
        `SELECT *, CAST(message_id AS CHAR) AS message FROM ${own.fulfilment.name}.dead_letters ORDER BY id`,
      );
      return found;
    };
    try {
      const name = newName();
      const handled: string[] = [];
      let cured = false;
      const handle: Handle = async ({ id }) => {
        if (!cured) await giveUp({ id, routingKey: '' });
        handled.push(id);
      };
      const consumer = await consumeWith(inboxOf(name, handle, small));
      const large = Buffer.from(`{"people":{"${'x'.repeat(2_000_000)}":1}}`);
      const ids = Array.from({ length: 6 }, () => uuidv7());
      for (const messageId of ids)
        foreign.send(
          { exchange: 'oncebox.events', routingKey: `${name}.checked` },
          { messageId, type: 'Checked', headers: [version] },
          large,
        );
      const innocent = publish(name);
      await expect
        .poll(async () => (await rows()).map((row) => row['message']).toSorted(), { ...PATIENCE, timeout: 60_000 })
        .toEqual([...ids, innocent].toSorted());
      await expect.poll(() => vhost.depth(`${name}.set-aside`), PATIENCE).toBe(6);
      for (const row of (await rows()).filter(({ message }) => message !== innocent)) {
        expect(row).toMatchObject({
          reason: expect.stringMatching(/^ONCEBOX_UNSTORABLE: .* over the max_allowed_packet of 1048576/),
        });
        expect(row['reason']).toContain('NonRetryableError');
      }
      await consumer.stop();
      await small.end();

      await root.query('SET GLOBAL max_allowed_packet = 67108864');
      cured = true;
      const ample = createPool(own.fulfilment.url, { connections: 5 });
      const again = await consumeWith(inboxOf(name, handle, ample));
      await startOncebox(['dead', 'bring-back', name], { AMQP_URL: vhost.amqpUrl }, tmpdir()).ended;
      await expect
        .poll(async () => (await rows()).filter((row) => row['body'].length === large.length), PATIENCE)
        .toHaveLength(6);
      await ample.query("UPDATE dead_letters SET state = 'replay'");
      await expect.poll(() => handled.toSorted(), PATIENCE).toEqual([...ids, innocent].toSorted());
      await again.stop();
      await ample.end();
    } finally {
      await root.end();
      await own.drop().catch(() => undefined);
      await database.remove();
    }
  },
);
