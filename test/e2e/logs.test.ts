import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { createSystem, type System, send } from '../support/system.ts';

const PATIENCE = { timeout: 30_000, interval: 20 };

let system: System;
beforeAll(async () => {
  system = await createSystem(inject('servers'));
});
afterAll(() => system?.drop());

const count = async (sql: string, id: string) => Number((await system.fulfilment(sql, [id]))[0]?.['n']);

test.each([
  { LOG_PAYLOADS: 'off', LOG_LEVEL: 'debug' },
  { LOG_PAYLOADS: 'on', LOG_LEVEL: 'debug' },
])('with LOG_PAYLOADS=$LOG_PAYLOADS personal data is in no line but those that show payloads', async (settings) => {
  const programs = [await system.api(settings), system.relay(settings), system.worker(settings)] as const;
  const [api, , worker] = programs;
  const email = `canary-${settings.LOG_PAYLOADS}@example.com`;
  const { body } = await send(api, 'POST', '/customers', { email, name: 'Canary Name' });
  const id = String(body['id']);
  const wrong = [
    { email, name: 'Canary Name' },
    { email, name: 'Canary\tName' },
    { email, canary: 1 },
    `{"email":"${email}`,
  ];
  const statuses = await Promise.all(wrong.map((body) => send(api, 'POST', '/customers', body)));
  expect(statuses.map(({ status }) => status)).toEqual([409, 422, 422, 400]);
  await send(api, 'PATCH', `/customers/${id}`, { name: 'Canary Again' }, { 'if-match': '"1"' });
  const directory = 'SELECT MAX(version) AS n FROM customer_directory WHERE customer_id = ?';
  await expect.poll(() => count(directory, id), PATIENCE).toBe(2);
  const emails = 'SELECT COUNT(*) AS n FROM emails WHERE customer_id = ?';
  await expect.poll(() => count(emails, id), PATIENCE).toBe(1);
  for (const program of programs) program.kill('SIGTERM');
  expect(await Promise.all(programs.map(({ exited }) => exited))).toEqual([0, 0, 0]);

  const showing = worker.lines.filter(({ msg }) => msg.startsWith('Handling ['));
  const others = programs.flatMap(({ lines }) => lines).filter((line) => !showing.includes(line));
  expect(others.length).toBeGreaterThan(10);
  expect(JSON.stringify(others)).not.toMatch(/canary/i);
  const payload =
    settings.LOG_PAYLOADS === 'on'
      ? JSON.stringify({ customerId: id, email, name: 'Canary Name', version: 1 })
      : '[hidden]';
  expect(showing.map(({ msg }) => msg)).toContain(`Handling [CustomerCreated] - Payload: '${payload}'`);
  for (const { msg, ...rest } of showing) expect(JSON.stringify(rest)).not.toMatch(/canary/i);
});
