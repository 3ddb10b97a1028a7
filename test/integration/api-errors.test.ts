import { createServer as createHttpServer, request } from 'node:http';
import { gzipSync } from 'node:zlib';
import { createPool, type Pool } from '@oncebox/mysql';
import { createLogger, type Listening, listen } from '@oncebox/service';
import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';
import { createApp } from '../../apps/api/src/app.ts';
import { cutAtCommit } from '../support/cut-at-commit.ts';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

const logger = createLogger({ name: 'api', level: 'silent', format: 'json' });
const ada = { email: 'ada@example.com', name: 'Ada' };

let schemas: TestSchemas;
let admin: Pool;
let api: Api;

interface Api {
  readonly port: number;
  close(): Promise<void>;
}

async function start(databaseUrl: string, session: Record<string, number> = {}): Promise<Api> {
  const pool = createPool(databaseUrl, { connections: 4, session });
  const http: Listening = await listen(createHttpServer(createApp({ pool, logger })), { port: 0, host: '127.0.0.1' });
  return { port: http.port, close: () => http.close().then(() => pool.end()) };
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

const count = async (): Promise<unknown> => {
  const [[row]] = JSON.parse(
    JSON.stringify(
      await admin.query(
        'SELECT (SELECT COUNT(*) FROM customers) AS customers, (SELECT COUNT(*) FROM outbox) AS messages',
      ),
    ),
  );
  return row;
};
const NOTHING = { customers: 0, messages: 0 };

interface Sent {
  readonly method?: string;
  readonly path?: string;
  readonly headers?: Record<string, string>;
  readonly body?: string | Buffer;
}

/** What fetch would not send: any body with any headers. */
function send(
  { method = 'POST', path = '/customers', headers = { 'content-type': 'application/json' }, body = '' }: Sent,
  to = api,
) {
  return new Promise<{
    status: number | undefined;
    type: string;
    headers: Record<string, unknown>;
    body: Record<string, unknown>;
  }>((resolve, reject) => {
    const sent = request(
      { host: '127.0.0.1', port: to.port, method, path, headers, agent: false },
      async (response) => {
        const text = Buffer.concat(await response.toArray()).toString();
        const body = JSON.parse(text);
        expect(response.headers['content-type']).toBe('application/problem+json; charset=utf-8');
        expect(body.status).toBe(response.statusCode);
        expect(body).toMatchObject({ title: expect.any(String), detail: expect.any(String) });
        const type = String(body.type).replace('urn:oncebox:problem:', '');
        resolve({ status: response.statusCode, type, headers: response.headers, body });
      },
    );
    sent.on('error', reject).end(body);
  });
}
const json = (value: unknown, rest: Sent = {}) => send({ body: JSON.stringify(value), ...rest });

describe('a body that is refused leaves no row behind', () => {
  afterEach(async () => expect(await count()).toEqual(NOTHING));

  it.each([
    ['no body', ''],
    ['half an object', '{"email":"ada@example.com"'],
    ['a trailing comma', '{"email":"ada@example.com","name":"Ada",}'],
    ['no JSON', 'email=ada@example.com'],
    [
      'bytes that are no UTF-8',
      Buffer.concat([Buffer.from('{"email":"ada@example.com","name":"'), Buffer.from([0xff]), Buffer.from('"}')]),
    ],
  ])('400: %s', async (_what, body) => {
    const answer = await send({ body });
    expect(answer).toMatchObject({ status: 400, type: 'malformed-json' });
    expect(JSON.stringify(answer.body)).not.toContain('ada');
  });

  it('400: a path that is not validly encoded', async () => {
    expect(await send({ method: 'GET', path: '/customers/%E0%A4%A' })).toMatchObject({
      status: 400,
      type: 'malformed-request',
    });
  });

  it('413: more than 100 kB, announced or not', async () => {
    const body = JSON.stringify({ ...ada, name: 'x'.repeat(102_400) });
    expect(await send({ body })).toMatchObject({ status: 413, type: 'body-too-large' });
    const chunked = { 'content-type': 'application/json', 'transfer-encoding': 'chunked' };
    expect(await send({ body, headers: chunked })).toMatchObject({ status: 413, type: 'body-too-large' });
  });

  it.each([
    [{}],
    [{ 'content-type': 'text/plain' }],
    [{ 'content-type': 'application/x-www-form-urlencoded' }],
    [{ 'content-type': 'application/json-patch+json' }],
    [{ 'content-type': 'application/json; charset=latin1' }],
    [{ 'content-type': 'application/json, text/plain' }],
    [{ 'content-type': 'application/json', 'content-encoding': 'gzip' }],
  ])('415: %o', async (headers: Record<string, string>) => {
    const body = headers['content-encoding'] === 'gzip' ? gzipSync(JSON.stringify(ada)) : JSON.stringify(ada);
    expect(await send({ headers, body })).toMatchObject({ status: 415, type: 'unsupported-media-type' });
  });

  it.each([
    [null, ['']],
    [[], ['']],
    [[ada], ['']],
    ['text', ['']],
    [7, ['']],
    [{}, ['email', 'name']],
    [{ email: 'ada@example.com' }, ['name']],
    [{ email: 'no address', name: '' }, ['email', 'name']],
    [{ email: null, name: 7 }, ['email', 'name']],
    [{ email: { toString: 'x' }, name: ['Ada'] }, ['email', 'name']],
    [{ ...ada, email: ' ada@example.com' }, ['email']],
    [{ ...ada, email: 'ada@example.com\r\nbcc: all@example.com' }, ['email']],
    [{ ...ada, email: `${'a'.repeat(243)}@example.com` }, ['email']],
    [{ ...ada, name: ' \t ' }, ['name']],
    [{ ...ada, name: 'x'.repeat(201) }, ['name']],
    [{ ...ada, name: '👩'.repeat(201) }, ['name']],
    [{ ...ada, name: 'Ada\u0000' }, ['name']],
    [{ ...ada, name: 'Ada\nKing' }, ['name']],
    [{ ...ada, id: 'mine' }, ['id']],
    [{ ...ada, version: 7, 'a/b~c': 1 }, ['version', 'a/b~c']],
    [{ ...ada, constructor: { prototype: { admin: true } } }, ['constructor']],
  ])('422: %j', async (value, fields) => {
    const { status, type, body } = await json(value);
    expect({ status, type }).toEqual({ status: 422, type: 'invalid-fields' });
    expect(body['errors']).toEqual(
      fields.map((field) => ({
        field,
        pointer: expect.stringMatching(/^#/),
        message: expect.stringMatching(/^(must|is) /),
      })),
    );
  });

  it('422: a field __proto__, and a name with half a surrogate pair', async () => {
    const proto = await send({ body: '{"email":"ada@example.com","name":"Ada","__proto__":{"admin":true}}' });
    expect(proto).toMatchObject({ status: 422, body: { errors: [{ field: '__proto__', pointer: '#/__proto__' }] } });
    const half = await send({ body: '{"email":"ada@example.com","name":"\\ud83d"}' });
    expect(half).toMatchObject({ status: 422, body: { errors: [{ field: 'name', pointer: '#/name' }] } });
  });

  it.each([[{}], [{ id: 'x' }], [{ name: 'Ada', version: 2 }], [null], [{ email: 'x' }]])(
    '422 to PATCH: %j',
    async (value) => {
      const headers = { 'content-type': 'application/json', 'if-match': '"1"' };
      const path = '/customers/01980a5e-5c00-7000-8000-000000000001';
      expect(await json(value, { method: 'PATCH', path, headers })).toMatchObject({
        status: 422,
        type: 'invalid-fields',
      });
    },
  );
});

describe('paths and methods', () => {
  it('404 for a path that does not exist', async () => {
    expect(await send({ method: 'GET', path: '/' })).toMatchObject({ status: 404, type: 'no-such-resource' });
    expect(await json(ada, { path: '/customer' })).toMatchObject({ status: 404, type: 'no-such-resource' });
  });

  it.each([
    ['DELETE', '/customers/x', 'GET, HEAD, PATCH'],
    ['GET', '/customers', 'POST'],
    ['OPTIONS', '/customers', 'POST'],
    ['POST', '/openapi.json', 'GET, HEAD'],
    ['POST', '/docs', 'GET, HEAD'],
  ])('405 for %s %s, with Allow', async (method, path, allow) => {
    expect(await send({ method, path })).toMatchObject({ status: 405, type: 'method-not-allowed', headers: { allow } });
  });
});

describe('the database', () => {
  it('503 with Retry-After while it is away', async () => {
    const away = await start('mysql://api:api@127.0.0.1:1/shop');
    try {
      const path = '/customers/01980a5e-5c00-7000-8000-000000000001';
      for (const sent of [{ body: JSON.stringify(ada) }, { method: 'GET', path }]) {
        expect(await send(sent, away)).toMatchObject({
          status: 503,
          type: 'database-unavailable',
          headers: { 'retry-after': '2' },
        });
      }
    } finally {
      await away.close();
    }
  });

  it('503 when a lock is held for longer than every attempt waits', async () => {
    const impatient = await start(schemas.shop.url, { innodb_lock_wait_timeout: 1 });
    const holder = await admin.getConnection();
    try {
      await holder.beginTransaction();
      await holder.query("INSERT INTO customers (id, email, name) VALUES ('x', 'ada@example.com', 'Ada')");
      expect(await send({ body: JSON.stringify(ada) }, impatient)).toMatchObject({
        status: 503,
        type: 'database-unavailable',
      });
    } finally {
      await holder.rollback();
      holder.release();
      await impatient.close();
    }
    expect(await count()).toEqual(NOTHING);
  });

  it('500 that tells nothing of the inside when something is wrong there', async () => {
    await admin.query('RENAME TABLE outbox TO outbox_away');
    try {
      const answer = await json(ada);
      expect(answer).toMatchObject({ status: 500, type: 'internal-error' });
      expect(JSON.stringify(answer.body)).not.toMatch(/outbox|table|sql/i);
    } finally {
      await admin.query('RENAME TABLE outbox_away TO outbox');
    }
    expect(await count()).toEqual(NOTHING);
  });

  it('500, not 409, when it is another key that has the value already', async () => {
    await admin.query("INSERT INTO customers (id, email, name) VALUES ('x', 'bob@example.com', 'Ada')");
    await admin.query('ALTER TABLE customers ADD UNIQUE KEY other (name)');
    try {
      expect(await json(ada)).toMatchObject({ status: 500, type: 'internal-error' });
    } finally {
      await admin.query('ALTER TABLE customers DROP KEY other');
      await admin.query('DELETE FROM customers');
    }
  });

  it('503 that says the outcome is unknown when the connection breaks during COMMIT; the same request again is safe', async () => {
    const proxy = await cutAtCommit(schemas.shop.url, true);
    const unlucky = await start(proxy.url);
    try {
      const answer = await send({ body: JSON.stringify(ada) }, unlucky);
      expect(answer).toMatchObject({ status: 503, type: 'outcome-unknown', headers: { 'retry-after': '2' } });
      // The proxy passes the COMMIT on before it cuts: it did take effect, and the server works it off in its own time.
      await expect.poll(count, { timeout: 10_000 }).toEqual({ customers: 1, messages: 1 });
      expect(await json(ada)).toMatchObject({ status: 409, type: 'email-taken' });
    } finally {
      await unlucky.close();
      await proxy.close();
    }
  });
});
