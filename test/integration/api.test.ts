import { once } from 'node:events';
import { createServer, get, request } from 'node:http';
import { createPool, type Pool } from '@oncebox/mysql';
import { createLogger, type Listening, listen } from '@oncebox/service';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it, onTestFinished } from 'vitest';
import { createApp } from '../../apps/api/src/app.ts';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const NOW = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
const logger = createLogger({ name: 'api', level: 'silent', format: 'json' });
const ada = { email: 'ada@example.com', name: 'Ada' };

let schemas: TestSchemas;
let admin: Pool;
let pool: Pool;
let http: Listening;

beforeAll(async () => {
  schemas = await createSchemas(inject('servers'));
  admin = createPool(schemas.shop.adminUrl, { connections: 4 });
  pool = createPool(schemas.shop.url, { connections: 8 });
  http = await listen(createServer(createApp({ pool, logger })), { port: 0, host: '127.0.0.1' });
});
afterAll(async () => {
  await http?.close();
  await pool?.end();
  await admin?.end();
  await schemas?.drop();
});
beforeEach(async () => {
  await admin.query('DELETE FROM customers');
  await admin.query('DELETE FROM outbox');
});

const rows = async (sql: string): Promise<Record<string, unknown>[]> => {
  const [found] = await admin.query(sql);
  return JSON.parse(JSON.stringify(found));
};
const customers = () => rows('SELECT * FROM customers');
const outboxRows = () => rows('SELECT * FROM outbox ORDER BY seq');

async function call(method: string, path: string, body?: unknown, headers: Record<string, string> = {}) {
  const response = await fetch(`http://127.0.0.1:${http.port}${path}`, {
    method,
    headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  return { status: response.status, headers: response.headers, body: text === '' ? undefined : JSON.parse(text) };
}
const create = async (body: unknown = ada) => (await call('POST', '/customers', body)).body;
const change = (id: string, version: number, body: unknown, headers: Record<string, string> = {}) =>
  call('PATCH', `/customers/${id}`, body, { 'if-match': `"${version}"`, ...headers });

describe('POST /customers', () => {
  it('answers 201 with the customer, its place and its version', async () => {
    const { status, headers, body } = await call('POST', '/customers', { ...ada, name: '  Ada  ' });
    expect(status).toBe(201);
    expect(body).toEqual({
      id: expect.stringMatching(UUID),
      ...ada,
      version: 1,
      createdAt: NOW,
      updatedAt: body.createdAt,
    });
    expect(headers.get('location')).toBe(`/customers/${body.id}`);
    expect(headers.get('etag')).toBe('"1"');
    expect(headers.get('content-type')).toMatch('application/json');
    expect(headers.get('x-content-type-options')).toBe('nosniff');
    expect(headers.get('x-powered-by')).toBeNull();
    expect(Math.abs(Date.parse(body.createdAt) - Date.now())).toBeLessThan(60_000);
  });

  it('writes the customer and its announcement together', async () => {
    const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
    const { body } = await call('POST', '/customers', ada, { 'x-correlation-id': 'order-4711', traceparent });
    expect(await customers()).toMatchObject([{ id: body.id, ...ada, version: 1 }]);
    const [row, ...others] = await outboxRows();
    expect(others).toEqual([]);
    expect(row).toMatchObject({
      id: expect.stringMatching(UUID),
      aggregatetype: 'customer',
      aggregateid: body.id,
      type: 'CustomerCreated',
      version: 1,
      exchange: 'oncebox.events',
      routing_key: 'customer.created',
      state: 'pending',
    });
    expect(JSON.parse(String(row?.['payload']))).toEqual({ customerId: body.id, ...ada, version: 1 });
    expect(JSON.parse(String(row?.['headers']))).toEqual({ correlationId: 'order-4711', traceparent });
  });

  it.each([
    ['de-CH, en;q=0.8', 'de'],
    ['*', 'en'],
    [undefined, 'en'],
  ])(
    'announces version 2, with the language of Accept-Language: %s, when every worker reads it',
    async (accepted, language) => {
      const app = createApp({ pool, logger, customerCreated: 2 });
      const newer = await listen(createServer(app), { port: 0, host: '127.0.0.1' });
      onTestFinished(newer.close);
      // Not by fetch, which adds a header of its own.
      const headers = { 'content-type': 'application/json', ...(accepted && { 'accept-language': accepted }) };
      const sent = request({ host: '127.0.0.1', port: newer.port, path: '/customers', method: 'POST', headers });
      sent.end(JSON.stringify(ada));
      const [response] = await once(sent, 'response');
      response.resume();
      const [row] = await outboxRows();
      expect(row).toMatchObject({ type: 'CustomerCreated', version: 2, routing_key: 'customer.created' });
      expect(JSON.parse(String(row?.['payload']))).toEqual({
        customerId: row?.['aggregateid'],
        ...ada,
        version: 1,
        language,
      });
    },
  );

  it('accepts values at their limits, and every script', async () => {
    const email = `${'a'.repeat(64)}@${`${'b'.repeat(60)}.`.repeat(3)}example.com`.slice(-254);
    for (const given of [
      { email, name: 'x'.repeat(200) },
      { email: "o'neil+tag@example.co.uk", name: "Robert'); DROP TABLE customers;--" },
      { email: 'emoji@example.com', name: '👩‍👩‍👧 Zoë 李' },
      { email: 'limit@example.com', name: '👩'.repeat(200) },
    ]) {
      expect(await create(given)).toMatchObject(given);
    }
    expect((await outboxRows()).map(({ payload }) => JSON.parse(String(payload)).name)).toContain('👩‍👩‍👧 Zoë 李');
  });

  it('answers 409 to an e-mail address that is taken, in whatever case', async () => {
    await create();
    const { status, body } = await call('POST', '/customers', { email: 'ADA@Example.com', name: 'Other' });
    expect(status).toBe(409);
    expect(body).toMatchObject({
      type: 'urn:oncebox:problem:email-taken',
      errors: [{ field: 'email', pointer: '#/email' }],
    });
    expect(JSON.stringify(body)).not.toMatch(/example/i);
    expect(await customers()).toHaveLength(1);
    expect(await outboxRows()).toHaveLength(1);
  });

  it('creates one customer of twenty requests at once for the same e-mail address', async () => {
    const answers = await Promise.all(Array.from({ length: 20 }, () => call('POST', '/customers', ada)));
    expect(answers.map(({ status }) => status).sort()).toEqual([201, ...Array(19).fill(409)]);
    expect(await customers()).toHaveLength(1);
    expect(await outboxRows()).toHaveLength(1);
  });
});

describe('GET /customers/:id', () => {
  it('answers with the customer and its version', async () => {
    const created = await create();
    const { status, headers, body } = await call('GET', `/customers/${created.id}`);
    expect({ status, body }).toEqual({ status: 200, body: created });
    expect(headers.get('etag')).toBe('"1"');
    expect((await call('HEAD', `/customers/${created.id}`)).headers.get('etag')).toBe('"1"');
  });

  it('answers 304 to a reader who has this version', async () => {
    const { id } = await create();
    // Not by fetch, which adds `Cache-Control: no-cache` to such a request.
    const read = async (etag: string) => {
      const sent = get({
        host: '127.0.0.1',
        port: http.port,
        path: `/customers/${id}`,
        headers: { 'if-none-match': etag },
      });
      const [response] = await once(sent, 'response');
      response.resume();
      return response.statusCode;
    };
    expect(await read('"1"')).toBe(304);
    expect(await read('"2"')).toBe(200);
  });

  it.each(['01980a5e-5c00-7000-8000-000000000001', 'no-uuid', '%27%20OR%201=1', 'ünknown'])(
    'answers 404 to the id %s',
    async (id) => {
      await create();
      const { status, body } = await call('GET', `/customers/${id}`);
      expect({ status, type: body.type }).toEqual({ status: 404, type: 'urn:oncebox:problem:no-such-customer' });
    },
  );
});

describe('PATCH /customers/:id', () => {
  it('changes the fields given, makes a new version and announces it', async () => {
    const created = await create();
    const { status, headers, body } = await change(created.id, 1, { name: 'Ada King' }, { 'x-correlation-id': 'c-2' });
    expect(status).toBe(200);
    expect(body).toEqual({ ...created, name: 'Ada King', version: 2, updatedAt: NOW });
    expect(body.updatedAt >= created.updatedAt).toBe(true);
    expect(headers.get('etag')).toBe('"2"');
    expect((await call('GET', `/customers/${created.id}`)).body).toEqual(body);
    const [, row, ...others] = await outboxRows();
    expect(others).toEqual([]);
    expect(row).toMatchObject({ aggregateid: created.id, type: 'CustomerUpdated', routing_key: 'customer.updated' });
    expect(JSON.parse(String(row?.['payload']))).toEqual({
      customerId: created.id,
      email: ada.email,
      name: 'Ada King',
      version: 2,
    });
    expect(JSON.parse(String(row?.['headers']))).toEqual({ correlationId: 'c-2' });
  });

  it('changes the e-mail address, frees the old one, and keeps its own in another case', async () => {
    const { id } = await create();
    expect((await change(id, 1, { email: 'ADA@example.com' })).body).toMatchObject({
      email: 'ADA@example.com',
      version: 2,
    });
    expect((await change(id, 2, { email: 'king@example.com' })).body).toMatchObject({
      email: 'king@example.com',
      version: 3,
    });
    expect((await call('POST', '/customers', ada)).status).toBe(201);
  });

  it('makes a new version of a change to the values it had', async () => {
    const { id } = await create();
    expect((await change(id, 1, { name: ada.name })).body).toMatchObject({ ...ada, version: 2 });
    expect(await outboxRows()).toHaveLength(2);
  });

  it('answers 409 to an e-mail address of another', async () => {
    await create();
    const { id } = await create({ email: 'bob@example.com', name: 'Bob' });
    const { status, body } = await change(id, 1, { name: 'Robert', email: ada.email });
    expect({ status, type: body.type }).toEqual({ status: 409, type: 'urn:oncebox:problem:email-taken' });
    expect(await customers()).toContainEqual(expect.objectContaining({ id, name: 'Bob', version: 1 }));
    expect(await outboxRows()).toHaveLength(2);
  });

  it.each([
    ['428', 'version-required', undefined],
    ['400', 'malformed-if-match', '1'],
    ['400', 'malformed-if-match', '*'],
    ['400', 'malformed-if-match', '"1", "2"'],
    ['400', 'malformed-if-match', '"1'],
    ['412', 'stale-version', '"2"'],
    ['412', 'stale-version', '"01"'],
    ['412', 'stale-version', '"1x"'],
    ['412', 'stale-version', 'W/"1"'],
    ['412', 'stale-version', '"99999999999999999999"'],
  ])('answers %s %s to If-Match: %s', async (status, problem, ifMatch) => {
    const { id } = await create();
    const answer = await call(
      'PATCH',
      `/customers/${id}`,
      { name: 'New' },
      ifMatch === undefined ? {} : { 'if-match': ifMatch },
    );
    expect(answer).toMatchObject({ status: Number(status), body: { type: `urn:oncebox:problem:${problem}` } });
    expect(await customers()).toMatchObject([{ name: ada.name, version: 1 }]);
    expect(await outboxRows()).toHaveLength(1);
  });

  it('answers 404 to an id of nobody, whatever the version', async () => {
    expect((await change('01980a5e-5c00-7000-8000-000000000001', 1, { name: 'x' })).status).toBe(404);
    expect((await change('no-uuid', 1, { name: 'x' })).status).toBe(404);
    expect(await outboxRows()).toEqual([]);
  });

  it('lets one of two changes of the same version win', async () => {
    const { id } = await create();
    const answers = await Promise.all(['one', 'two'].map((name) => change(id, 1, { name })));
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 412]);
    expect(await outboxRows()).toHaveLength(2);
  });

  it('announces the changes of writers at once in the order of their versions', async () => {
    const { id } = await create();
    const writer = async (name: string): Promise<void> => {
      for (let done = 0; done < 5; ) {
        const { body } = await call('GET', `/customers/${id}`);
        const { status } = await change(id, body.version, { name: `${name}${done}` });
        expect([200, 412]).toContain(status);
        if (status === 200) done += 1;
      }
    };
    await Promise.all(['a', 'b', 'c', 'd'].map(writer));
    const versions = (await outboxRows()).map(({ payload }) => JSON.parse(String(payload)).version);
    expect(versions).toEqual(Array.from({ length: 21 }, (_, index) => index + 1));
  });
});

describe('correlation', () => {
  it('echoes the id that it was given', async () => {
    const { headers } = await call('GET', '/nowhere', undefined, { 'x-correlation-id': 'order-4711' });
    expect(headers.get('x-correlation-id')).toBe('order-4711');
  });

  it.each(['', 'with space', 'x'.repeat(129), 'ünïcode'.normalize('NFC')])('makes one instead of %j', async (given) => {
    const { headers } = await call('POST', '/customers', ada, { 'x-correlation-id': given });
    const made = headers.get('x-correlation-id');
    expect(made).toMatch(UUID);
    expect(JSON.parse(String((await outboxRows())[0]?.['headers']))).toEqual({ correlationId: made });
  });

  it('takes no malformed traceparent over', async () => {
    const traceparent = '00-00000000000000000000000000000000-00f067aa0ba902b7-01';
    await call('POST', '/customers', ada, { 'x-correlation-id': 'c', traceparent });
    expect(JSON.parse(String((await outboxRows())[0]?.['headers']))).toEqual({ correlationId: 'c' });
  });
});
