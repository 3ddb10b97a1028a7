import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Listening } from './http-server.ts';
import { type Check, type MetricsPage, startOpsServer } from './ops.ts';

let ops: Listening;
let stopping: AbortController;
let lines: string[];
const checks: Record<string, Check> = {};
const metrics: MetricsPage = {
  contentType: 'text/plain; version=0.0.4',
  render: async (found) => `ready ${JSON.stringify(found)}`,
};

beforeEach(async () => {
  stopping = new AbortController();
  lines = [];
  const logger = pino({}, { write: (line: string) => void lines.push(JSON.parse(line).msg) });
  ops = await startOpsServer({ port: 0, host: '127.0.0.1', checks, metrics, logger, stopping: stopping.signal });
});
afterEach(() => ops.close());

async function get(path: string, method = 'GET') {
  const response = await fetch(`http://127.0.0.1:${ops.port}${path}`, { method });
  return { status: response.status, body: method === 'HEAD' ? await response.text() : await response.json() };
}

describe('readyz', () => {
  it('is 200 while every dependency answers', async () => {
    checks['database'] = async () => {};
    expect(await get('/readyz')).toEqual({ status: 200, body: { ready: true, checks: { database: 'ok' } } });
    expect(await get('/readyz', 'HEAD')).toEqual({ status: 200, body: '' });
  });

  it('is 503 with the code of what is missing, without its message, and logs the change both ways', async () => {
    checks['database'] = () => Promise.reject(Object.assign(new Error('password s3cret'), { code: 'ECONNREFUSED' }));
    expect(await get('/readyz')).toEqual({ status: 503, body: { ready: false, checks: { database: 'ECONNREFUSED' } } });
    await get('/readyz');
    checks['database'] = () => {
      throw new Error('password s3cret');
    };
    expect((await get('/readyz')).body).toEqual({ ready: false, checks: { database: 'failed' } });
    checks['database'] = async () => {};
    expect((await get('/readyz')).status).toBe(200);
    expect(lines).toEqual(['Not ready (database: ECONNREFUSED)', 'Not ready (database: failed)', 'Ready']);
  });

  it("names the server's error where there was no connection, with its number", async () => {
    const denied = Object.assign(new Error('s3cret'), { code: 'ER_ACCESS_DENIED_ERROR', errno: 1045 });
    checks['database'] = () =>
      Promise.reject(Object.assign(new Error('none', { cause: denied }), { code: 'ONCEBOX_NO_CONNECTION' }));
    expect((await get('/readyz')).body).toEqual({
      ready: false,
      checks: { database: 'ER_ACCESS_DENIED_ERROR (1045)' },
    });
  });

  it('does not ask a dependency again that has not answered', async () => {
    let calls = 0;
    checks['database'] = () => {
      calls += 1;
      return new Promise(() => {});
    };
    await Promise.all([get('/readyz'), get('/readyz')]);
    await get('/readyz');
    expect(calls).toBe(1);
  });

  it('does not wait for a dependency that hangs', async () => {
    checks['database'] = () => new Promise(() => {});
    expect(await get('/readyz')).toEqual({ status: 503, body: { ready: false, checks: { database: 'timeout' } } });
  });

  it('is 503 once the process is stopping', async () => {
    checks['database'] = async () => {};
    stopping.abort();
    expect(await get('/readyz')).toMatchObject({ status: 503, body: { ready: false, stopping: true } });
  });
});

it('livez is 200 whatever the dependencies do', async () => {
  checks['database'] = () => new Promise(() => {});
  stopping.abort();
  expect(await get('/livez?probe=1')).toEqual({ status: 200, body: { live: true } });
});

it('metrics shows which dependency is there, also when one is not', async () => {
  checks['database'] = async () => {};
  checks['broker'] = () => Promise.reject(new Error('away'));
  const response = await fetch(`http://127.0.0.1:${ops.port}/metrics`);
  expect([response.status, response.headers.get('content-type')]).toEqual([200, metrics.contentType]);
  expect(await response.text()).toBe('ready {"database":true,"broker":false}');
  delete checks['broker'];
});

it('livez answers nothing while the loop does not turn, and 200 when it turns again', async () => {
  const source = `
    import { startOpsServer } from ${JSON.stringify(new URL('ops.ts', import.meta.url).href)};
    const logger = { info() {}, warn() {} };
    const metrics = { contentType: '', render: async () => '' };
    const stopping = new AbortController().signal;
    const { port } = await startOpsServer({ port: 0, host: '127.0.0.1', checks: {}, metrics, logger, stopping });
    console.log(port);
    process.stdin.on('data', () => { console.log('blocked'); Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2000); console.log('turns'); });`;
  const child = spawn(process.execPath, ['--conditions=oncebox-source', '--input-type=module', '-e', source]);
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  const line = async () => String((await lines.next()).value);
  try {
    const livez = `http://127.0.0.1:${await line()}/livez`;
    const probe = () =>
      fetch(livez, { signal: AbortSignal.timeout(500) }).then(
        ({ status }) => status,
        () => 'no answer',
      );
    expect(await probe()).toBe(200);
    child.stdin.write('block');
    expect(await line()).toBe('blocked');
    expect(await probe()).toBe('no answer');
    expect(await line()).toBe('turns');
    expect(await probe()).toBe(200);
  } finally {
    child.kill('SIGKILL');
  }
}, 20_000);

it('answers 404 elsewhere and 405 to what does not read', async () => {
  expect((await get('/')).status).toBe(404);
  expect((await get('/livez', 'POST')).status).toBe(405);
});

it('says so when its port is taken', async () => {
  const second = startOpsServer({
    port: ops.port,
    host: '127.0.0.1',
    checks,
    metrics,
    logger: pino({ level: 'silent' }),
    stopping: stopping.signal,
  });
  await expect(second).rejects.toThrow(expect.objectContaining({ code: 'EADDRINUSE' }));
});
