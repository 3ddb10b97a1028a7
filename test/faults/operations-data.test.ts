import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { checkInvariants } from '../support/invariants.ts';
import type { Program } from '../support/processes.ts';
import { createSystem, type System, send } from '../support/system.ts';
import { record } from '../support/wire.ts';

const PATIENCE = { timeout: 60_000, interval: 50 };
const CANARY = 'canary-7f3a';

let system: System;
beforeAll(async () => {
  system = await createSystem(inject('servers'));
});
afterAll(() => system?.drop());

it('52: names and addresses are in no log, metric, dead letter header or reason, whatever fails over them', async () => {
  // The handler fails, and the database's error quotes the address.
  await system.fulfilment('ALTER TABLE emails ADD UNIQUE KEY one_recipient (recipient)');
  const email = (n: number) => `${CANARY}-${n}@example.com`;
  await system.fulfilment(
    "INSERT INTO emails (message_id, customer_id, recipient, subject, body) VALUES ('x', 'x', ?, '', '')",
    [email(1)],
  );
  const debug = { LOG_LEVEL: 'trace' };
  const [api, relay, worker] = [
    await system.api(debug),
    system.relay(debug),
    system.worker({ ...debug, WORKER_RETRY_DELAYS_MS: '50,50' }),
  ];
  const programs = [api, relay, worker];
  await Promise.all(programs.map((program) => program.ready()));
  const recording = await record(system.vhost.amqpUrl);

  const post = async (body: object | string) => (await send(api, 'POST', '/customers', body)).status;
  const created = await send(api, 'POST', '/customers', { email: email(1), name: CANARY });
  expect(created.status).toBe(201);
  expect(await post({ email: email(1), name: CANARY })).toBe(409);
  expect(await post({ email: CANARY, name: CANARY, [CANARY]: CANARY })).toBe(422);
  expect(await post(`{"email": "${email(2)}`)).toBe(400);
  // Not by the api, and not as the contract wants it: the consumer refuses it at once.
  await (await system.vhost.channel()).sendToQueue(
    'welcome-email',
    Buffer.from(JSON.stringify({ email: email(3), name: CANARY })),
    { messageId: 'broken', type: 'CustomerCreated', headers: { schemaversion: 1 } },
  );
  const letters = () => system.fulfilment('SELECT * FROM dead_letters');
  await expect.poll(letters, PATIENCE).toHaveLength(2);

  const found = (text: string): string[] => text.split('\n').filter((line) => line.includes(CANARY));
  expect(found(programs.flatMap(({ lines }) => lines.map((line) => JSON.stringify(line))).join('\n'))).toEqual([]);
  expect(found((await Promise.all(programs.map(metrics))).join('\n'))).toEqual([]);
  const [kept] = await letters();
  expect(String(kept?.['body'])).toContain(CANARY); // what a replay needs, and the only column that has it
  const columns = (await letters()).map(({ body, ...others }) => JSON.stringify(others));
  expect(found(columns.join('\n'))).toEqual([]);
  expect(found(JSON.stringify(await system.shop('SELECT headers, last_error FROM outbox')))).toEqual([]);

  const [row] = await system.shop('SELECT id FROM outbox');
  await system.fulfilment("DELETE FROM emails WHERE message_id = 'x'");
  await checkInvariants(
    { ...system, recording },
    { accepted: [String(created.body['id'])], dead: ['welcome-email broken', `welcome-email ${row?.['id']}`] },
  );
});

async function metrics(program: Program): Promise<string> {
  const [, port] = await program.said(/probes on port (\d+)/i);
  return (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
}
