import { createServer } from 'node:http';
import { createPool, deleteExpired, type Pool, transaction } from '@oncebox/mysql';
import { createLogger, listen } from '@oncebox/service';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { createApp } from '../../apps/api/src/app.ts';
import { IDEMPOTENCY_KEYS, useKey } from '../../apps/api/src/idempotency/store.ts';
import { cutAtCommit } from '../support/cut-at-commit.ts';
import { start as startProcess } from '../support/processes.ts';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

const logger = createLogger({ name: 'api', level: 'silent', format: 'json' });
const ada = JSON.stringify({ email: 'ada@example.com', name: 'Ada 👩' });
const bob = JSON.stringify({ email: 'bob@example.com', name: 'Bob' });

let schemas: TestSchemas;
let admin: Pool;
let api: Api;

interface Api {
  readonly url: string;
  close(): Promise<void>;
}

async function start(databaseUrl: string): Promise<Api> {
  const pool = createPool(databaseUrl, { connections: 16 });
  const http = await listen(createServer(createApp({ pool, logger })), { port: 0, host: '127.0.0.1' });
  return { url: `http://127.0.0.1:${http.port}`, close: () => http.close().then(() => pool.end()) };
}

beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  admin = createPool(schemas.shop.adminUrl, { connections: 4 });
  api = await start(schemas.shop.url);
});
afterAll(async () => {
  await api?.close();
  await admin?.end();
  await schemas?.drop();
});
beforeEach(async () => {
  for (const table of ['customers', 'outbox', 'idempotency_keys']) await admin.query('DELETE FROM ??', [table]);
});

async function post(key: string | undefined, body = ada, { path = '/customers', to = api.url } = {}) {
  const response = await fetch(to + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(key === undefined ? {} : { 'idempotency-key': key }) },
    body,
  });
  const { status, headers } = response;
  const text = await response.text();
  const problem = status < 400 ? undefined : String(JSON.parse(text).type).replace('urn:oncebox:problem:', '');
  return { status, headers, text, problem, replayed: headers.get('idempotency-replayed') };
}

const count = async (): Promise<unknown> => {
  const [rows] = await admin.query(
    `SELECT (SELECT COUNT(*) FROM customers) AS customers, (SELECT COUNT(*) FROM outbox) AS messages,
            (SELECT COUNT(*) FROM idempotency_keys) AS \`keys\``,
  );
  return JSON.parse(JSON.stringify(rows))[0];
};
const ONE = { customers: 1, messages: 1, keys: 1 };

describe('a request that is sent again', () => {
  it('takes effect once and is answered as it was, byte for byte', async () => {
    const first = await post('"k"');
    expect(first).toMatchObject({ status: 201, replayed: null });
    const again = await post('"k"');
    expect(again).toMatchObject({ status: 201, replayed: 'true', text: first.text });
    for (const name of ['location', 'etag', 'content-type', 'content-length']) {
      expect(again.headers.get(name)).toBe(first.headers.get(name));
    }
    expect(again.headers.get('x-correlation-id')).not.toBe(first.headers.get('x-correlation-id'));
    expect(await count()).toEqual(ONE);
  });

  it('is answered as it was after the customer has changed', async () => {
    const first = await post('"k"');
    const changed = await fetch(api.url + first.headers.get('location'), {
      method: 'PATCH',
      headers: { 'content-type': 'application/json', 'if-match': '"1"', 'idempotency-key': '"k"' },
      body: '{"name":"Ada King"}',
    });
    expect(changed.status).toBe(200);
    expect(await post('"k"')).toMatchObject({ status: 201, replayed: 'true', text: first.text });
  });

  it('is 422 when it is another request', async () => {
    const first = await post('"k"');
    expect(await post('"k"', bob)).toMatchObject({ status: 422, problem: 'idempotency-key-reused', replayed: null });
    expect(await post('"k"', ` ${ada}`)).toMatchObject({ status: 422, problem: 'idempotency-key-reused' });
    expect(await post('"k"', ada, { path: '/customers?x=1' })).toMatchObject({ status: 422 });
    expect(await post('"k"')).toMatchObject({ status: 201, text: first.text });
    expect(await count()).toEqual(ONE);
  });

  it('without a key is a new request, and nothing of it is stored', async () => {
    expect(await post(undefined)).toMatchObject({ status: 201, replayed: null });
    expect(await post(undefined)).toMatchObject({ status: 409, problem: 'email-taken' });
    expect(await count()).toEqual({ ...ONE, keys: 0 });
  });

  it('is a new one when what was asked the first time changed nothing', async () => {
    const { headers } = await post('"first"');
    expect(await post('"k"', '{"email":"ada"}')).toMatchObject({ status: 422, problem: 'invalid-fields' });
    expect(await post('"k"')).toMatchObject({ status: 409, problem: 'email-taken' });
    expect(await count()).toEqual(ONE);
    await fetch(api.url + headers.get('location'), {
      method: 'PATCH',
      headers: { 'content-type': 'application/json', 'if-match': '"1"' },
      body: '{"email":"king@example.com"}',
    });
    // By way of other connections: those of the first try hold on to nothing.
    const another = await start(schemas.shop.url);
    expect(await post('"k"', ada, { to: another.url })).toMatchObject({ status: 201, replayed: null });
    await another.close();
  });
});

describe('at the same time', () => {
  it('fifty of one key make one customer, and each is answered with it at last', async () => {
    const untilAnswered = async (): Promise<string> => {
      const answer = await post('"k"');
      if (answer.problem === 'request-in-progress') return untilAnswered();
      expect(answer.status).toBe(201);
      return answer.text;
    };
    const texts = await Promise.all(Array.from({ length: 50 }, untilAnswered));
    expect(new Set(texts).size).toBe(1);
    expect(await count()).toEqual(ONE);
  });

  it('repetitions of a finished request do not hinder one another', async () => {
    const { text } = await post('"k"');
    const answers = await Promise.all(Array.from({ length: 50 }, () => post('"k"')));
    for (const answer of answers) expect(answer).toMatchObject({ status: 201, text });
  });

  it('a second one is 409 at once, while the first waits for a lock', async () => {
    // Addresses that no row had before: an INSERT also locks what is next to a row that was deleted.
    const held = JSON.stringify({ email: 'held@example.com', name: 'Held' });
    const other = JSON.stringify({ email: 'zoe@example.com', name: 'Zoe' });
    const holder = await admin.getConnection();
    try {
      await holder.beginTransaction();
      await holder.query("INSERT INTO customers (id, email, name) VALUES ('held', 'held@example.com', 'Held')");
      // Whichever comes first waits for the holder; no other may wait for it in turn.
      const sent = Array.from({ length: 20 }, () => post('"k"', held));
      const answered: Awaited<ReturnType<typeof post>>[] = [];
      for (const each of sent) each.then((answer) => answered.push(answer)).catch(() => undefined);
      await expect.poll(() => answered.length, { timeout: 5_000 }).toBe(19);
      for (const { status, problem, headers } of answered) {
        expect({ status, problem }).toEqual({ status: 409, problem: 'request-in-progress' });
        expect(headers.get('retry-after')).toBe('1');
      }
      expect((await post('"other"', other)).status).toBe(201);
      await holder.rollback();
      const made = (await Promise.all(sent)).filter(({ status }) => status === 201);
      expect(made).toHaveLength(1);
      expect(await post('"k"', held)).toMatchObject({ status: 201, replayed: 'true', text: made[0]?.text });
    } finally {
      await holder.rollback();
      holder.release();
    }
  });

  it('a key in a transaction that is not committed yet is 409 at once, and free again when it rolls back', async () => {
    const holder = await admin.getConnection();
    try {
      await holder.beginTransaction();
      await holder.query(
        `INSERT INTO idempotency_keys (idempotency_key, request_hash, status, response_headers, response_body)
         VALUES ('k', REPEAT('x', 32), 201, '{}', '{}')`,
      );
      expect(await post('"k"')).toMatchObject({ status: 409, problem: 'request-in-progress' });
      // Its neighbours in the index are not in the way.
      expect((await post('"j"', ada)).status).toBe(201);
      expect((await post('"l"', bob)).status).toBe(201);
      await holder.rollback();
      await admin.query("DELETE FROM customers WHERE email = 'ada@example.com'");
      expect(await post('"k"')).toMatchObject({ status: 201, replayed: null });
    } finally {
      await holder.rollback();
      holder.release();
    }
  });

  it('a stored answer is sent although somebody holds its row', async () => {
    const { text } = await post('"k"');
    const holder = await admin.getConnection();
    try {
      await holder.beginTransaction();
      await holder.query('DELETE FROM idempotency_keys');
      expect(await post('"k"')).toMatchObject({ status: 201, replayed: 'true', text });
    } finally {
      await holder.rollback();
      holder.release();
    }
  });
});

describe('keys', () => {
  it.each([
    ['case', '"key"', '"KEY"'],
    ['a space at the end', '"key"', '"key "'],
    ['an accent', '"key"', '"k\u00e9y"'],
    ['the last of 255 bytes', `"${'x'.repeat(254)}a"`, `"${'x'.repeat(254)}b"`],
  ])('that differ by %s are two', async (_what, one, other) => {
    expect(await post(one, ada)).toMatchObject({ status: 201, replayed: null });
    expect(await post(other, bob)).toMatchObject({ status: 201, replayed: null });
    expect(await post(one, ada)).toMatchObject({ status: 201, replayed: 'true' });
    expect(await post(other, bob)).toMatchObject({ status: 201, replayed: 'true' });
  });

  it('with quotes and without are one', async () => {
    await post('8e03978e-40d5-43dd-bc93-6894a57f9324');
    expect(await post('"8e03978e-40d5-43dd-bc93-6894a57f9324"')).toMatchObject({ status: 201, replayed: 'true' });
  });

  it.each(['', '""', '"open', 'a, b', '"a", "b"', `"${'x'.repeat(256)}"`])('400 to %j', async (key) => {
    const { status, problem, text } = await post(key);
    expect({ status, problem }).toEqual({ status: 400, problem: 'malformed-idempotency-key' });
    expect(JSON.parse(text).detail).toContain('Idempotency-Key: "');
    expect(await count()).toEqual({ customers: 0, messages: 0, keys: 0 });
  });
});

describe('an outcome that is unknown', () => {
  it.each([
    ['had taken effect', true, 'true'],
    ['had not', false, null],
  ])('is settled by sending the request again: 201 when it %s', async (_what, arrives, replayed) => {
    const proxy = await cutAtCommit(schemas.shop.url, arrives);
    const unlucky = await start(proxy.url);
    try {
      const lost = await post('"k"', ada, { to: unlucky.url });
      expect(lost).toMatchObject({ status: 503, problem: 'outcome-unknown' });
      expect(lost.headers.get('retry-after')).toBe('2');
      expect(lost.text).toContain('the same Idempotency-Key');
    } finally {
      await unlucky.close();
      await proxy.close();
    }
    // As a client does it: again while the server is still busy with the first.
    const settled = async () => {
      const answer = await post('"k"');
      if (answer.problem !== 'request-in-progress') expect(answer).toMatchObject({ status: 201, replayed });
      return answer.status;
    };
    await expect.poll(settled, { timeout: 10_000 }).toBe(201);
    expect(await count()).toEqual(ONE);
  });
});

it('A8: a key whose work was the victim of a deadlock is free for the next attempt, and held by nobody afterwards', async () => {
  const pool = createPool(schemas.shop.url, { connections: 2 });
  const rival = await admin.getConnection();
  const insert = 'INSERT INTO customers (id, email, name) VALUES (?, ?, ?)';
  for (const id of ['a', 'b']) await admin.query(insert, [id, `${id}@example.com`, id]);
  await rival.query('START TRANSACTION');
  // More rows than the request changes, so that the server chooses the request as the victim.
  for (const id of ['c', 'd', 'e', 'f']) await rival.query(insert, [id, `${id}@example.com`, id]);
  await rival.query("UPDATE customers SET name = 'rival' WHERE id = 'b'");
  const key = Buffer.from('deadlocked');
  let attempts = 0;
  const outcome = await transaction(pool, (tx) =>
    useKey(tx, key, Buffer.alloc(32), async () => {
      attempts += 1;
      await tx.execute("UPDATE customers SET name = 'ours' WHERE id = 'a'");
      const waits = tx.execute("UPDATE customers SET name = 'ours' WHERE id = 'b'");
      waits.catch(() => undefined); // it may be the victim before it is awaited
      if (attempts === 1) await rival.query("UPDATE customers SET name = 'rival' WHERE id = 'a'");
      if (attempts === 1) await rival.query('ROLLBACK');
      await waits;
      return { status: 201, headers: {}, body: '{}' };
    }),
  );
  rival.release();
  expect(attempts).toBe(2);
  expect(outcome).toHaveProperty('made');
  const [locks] = await admin.query("SELECT IS_USED_LOCK(SHA2(CONCAT(DATABASE(), '/', ?), 256)) AS owner", [
    key.toString('hex'),
  ]);
  expect(locks).toEqual([{ owner: null }]);
  await pool.end();
});

describe('retention', () => {
  const age = (hours: number, key: string) =>
    admin.query(
      'UPDATE idempotency_keys SET created_at = TIMESTAMPADD(HOUR, ?, UTC_TIMESTAMP(6)) WHERE idempotency_key = ?',
      [-hours, key],
    );

  it('forgets the keys that are old enough and no other, as the api is allowed to', async () => {
    await post('"old"', ada);
    await post('"young"', bob);
    await age(25, 'old');
    await age(23, 'young');
    const pool = createPool(schemas.shop.url, { connections: 1 });
    expect(await deleteExpired(pool, IDEMPOTENCY_KEYS, 24, new AbortController().signal)).toBe(1);
    await pool.end();
    expect(await post('"young"', bob)).toMatchObject({ status: 201, replayed: 'true' });
    expect(await post('"old"', ada)).toMatchObject({ status: 409, problem: 'email-taken' });
  });

  it('is run by the api, by its setting', async () => {
    await post('"old"', ada);
    await post('"young"', bob);
    await age(3, 'old');
    await age(1, 'young');
    const process = startProcess('apps/api/src/main.ts', {
      API_DATABASE_URL: schemas.shop.url,
      AMQP_URL: 'amqp://a:b@127.0.0.1:1',
      API_PORT: '0',
      API_OPS_PORT: '0',
      API_IDEMPOTENCY_HOURS: '2',
    });
    await process.said(/^Deleted 1 rows of idempotency_keys that were older than 2 h$/);
    const [rows] = await admin.query('SELECT CAST(idempotency_key AS CHAR) AS name FROM idempotency_keys');
    expect(rows).toEqual([{ name: 'young' }]);
    process.kill('SIGTERM');
    expect(await process.exited).toBe(0);
  });
});
