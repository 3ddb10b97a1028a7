import { tmpdir } from 'node:os';
import { beforeEach, expect, inject, it, onTestFinished } from 'vitest';
import { checkInvariants } from '../support/invariants.ts';
import { startOncebox } from '../support/oncebox.ts';
import { createSystem, postCustomer, type System } from '../support/system.ts';
import { record } from '../support/wire.ts';

/** Dead letters that an operator sends again, while the worker runs. */

const PATIENCE = { timeout: 60_000, interval: 50 };

let system: System;
beforeEach(async () => {
  const created = await createSystem(inject('servers'));
  system = created;
  onTestFinished(created.drop); // after the hook that ends the processes
});

const states = async () => (await system.fulfilment('SELECT state FROM dead_letters')).map(({ state }) => state);
const emails = async () => (await system.fulfilment('SELECT * FROM emails')).length;
const replay = (...options: string[]) =>
  startOncebox(
    ['dead', 'replay', '--all', ...options],
    { WORKER_DATABASE_URL: system.schemas.fulfilment.url },
    tmpdir(),
  ).ended;

/** A customer whose e-mail failed until it was given up, and could be sent now. */
async function deadLetter() {
  await system.fulfilment('RENAME TABLE emails TO emails_away');
  const [api, relay, worker] = [await system.api(), system.relay(), system.worker({ WORKER_RETRY_DELAYS_MS: '50' })];
  await Promise.all([relay.ready(), worker.ready()]);
  const recording = await record(system.vhost.amqpUrl);
  const id = await postCustomer(api, 'unlucky');
  await expect.poll(states, PATIENCE).toEqual(['dead']);
  await system.fulfilment('RENAME TABLE emails_away TO emails');
  return { id, recording };
}

it('53: a dead letter that is sent again twice keeps its id and has one effect', async () => {
  const { id, recording } = await deadLetter();
  expect(await replay()).toMatchObject({ code: 0 });
  await expect.poll(states, PATIENCE).toEqual(['replayed']);
  await expect.poll(emails, PATIENCE).toBe(1);
  // The command takes no letter twice; whoever writes the state himself sends it twice.
  expect(JSON.parse((await replay('--json')).stdout)).toEqual({ messages: [], counts: {} });
  await system.fulfilment("UPDATE dead_letters SET state = 'replay'");
  await expect.poll(states, PATIENCE).toEqual(['replayed']);
  await checkInvariants({ ...system, recording }, { accepted: [id] });
});

it('54: a message that the inbox may have forgotten is sent again only with --force: then its effect may come again', async () => {
  const { id, recording } = await deadLetter();
  expect(await replay()).toMatchObject({ code: 0 });
  await expect.poll(emails, PATIENCE).toBe(1);
  await checkInvariants({ ...system, recording }, { accepted: [id] });

  // Retention, later.
  await system.fulfilment("DELETE FROM processed_messages WHERE consumer = 'welcome-email'");
  await system.fulfilment(
    "UPDATE retention SET forgotten_before = UTC_TIMESTAMP(6) + INTERVAL 1 HOUR WHERE name = 'processed_messages'",
  );
  await system.fulfilment("UPDATE dead_letters SET state = 'dead'");
  const refused = await replay();
  expect(refused).toMatchObject({ code: 1, stdout: expect.stringContaining('older than what the inbox remembers') });
  expect([await states(), await emails()]).toEqual([['dead'], 1]);

  expect(await replay('--force')).toMatchObject({ code: 0 });
  await expect.poll(emails, PATIENCE).toBe(2);
});
