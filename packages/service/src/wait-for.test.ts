import { pino } from 'pino';
import { expect, it } from 'vitest';
import { waitFor } from './wait-for.ts';

const lines: string[] = [];
const logger = pino({}, { write: (line: string) => void lines.push(JSON.parse(line).msg) });
const refused = () => Promise.reject(Object.assign(new Error('no'), { code: 'ECONNREFUSED' }));

it('attempts until the server is there, and says which one it waits for', async () => {
  lines.length = 0;
  let attempts = 0;
  const attempt = () => (++attempts < 3 ? refused() : Promise.resolve('connection'));
  const { signal } = new AbortController();
  expect(await waitFor('database 127.0.0.1:13306', attempt, { logger, signal })).toBe('connection');
  expect(lines).toEqual([
    'Waiting for database 127.0.0.1:13306: ECONNREFUSED',
    'Waiting for database 127.0.0.1:13306: ECONNREFUSED',
    'Found database 127.0.0.1:13306',
  ]);
});

it('ends with the reason of its signal, in a pause as well as in an attempt', async () => {
  const reason = new Error('Stopped by SIGTERM');
  const inPause = new AbortController();
  const waiting = waitFor('database', refused, { logger, signal: inPause.signal });
  setImmediate(() => inPause.abort(reason));
  await expect(waiting).rejects.toBe(reason);

  const inAttempt = new AbortController();
  const attempt = () => {
    inAttempt.abort(reason);
    return refused();
  };
  await expect(waitFor('database', attempt, { logger, signal: inAttempt.signal })).rejects.toBe(reason);
});
