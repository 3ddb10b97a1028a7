import { tmpdir } from 'node:os';
import { beforeEach, expect, inject, it, onTestFinished } from 'vitest';
import { backUp } from '../support/backup.ts';
import { checkInvariants } from '../support/invariants.ts';
import { startOncebox } from '../support/oncebox.ts';
import { type Api, createSystem, postCustomer, type System, send } from '../support/system.ts';

/**
 * A database that comes back from a backup, or a broker whose disk is gone, under the three
 * processes.
 */

const PATIENCE = { timeout: 60_000, interval: 50 };

let system: System;
beforeEach(async () => {
  const created = await createSystem(inject('servers'));
  system = created;
  onTestFinished(created.drop); // after the hook that ends the processes
});

async function oncebox(...args: string[]) {
  const env = {
    RELAY_DATABASE_URLS: system.schemas.relayUrls,
    API_DATABASE_URL: system.schemas.shop.url,
    WORKER_DATABASE_URL: system.schemas.fulfilment.url,
  };
  const { code, stdout, stderr } = await startOncebox([...args, '--json'], env, tmpdir()).ended;
  if (stdout === '') throw new Error(`oncebox ${args.join(' ')}: ${code} ${stderr}`);
  return { code, ...JSON.parse(stdout) };
}
const verify = () => oncebox('verify', '--settled-for', '0s', '--closed');

interface Found {
  readonly problem: string;
  readonly id: string;
  readonly consumer?: string;
}
/**
 * `<problem> <customer> <version>[ at <consumer>]`, sorted: what a finding of `verify` is about.
 */
function about({ findings }: { findings: readonly Found[] }, messages: ReadonlyMap<string, string>): string[] {
  return findings
    .map(({ problem, id, consumer }) => {
      const at = consumer === undefined ? '' : ` at ${consumer.split('/')[1]}`;
      return `${problem}: ${messages.get(id)}${at}`;
    })
    .toSorted();
}

/** What the outbox has now, by the ids of messages: `<mark> <version>`. */
async function messagesOf(marks: ReadonlyMap<string, string>): Promise<Map<string, string>> {
  const rows = await system.shop('SELECT id, aggregateid, payload FROM outbox');
  return new Map(
    rows.map(({ id, aggregateid, payload }) => [id, `${marks.get(aggregateid)} ${JSON.parse(payload).version}`]),
  );
}

const published = async () => (await system.shop("SELECT id FROM outbox WHERE state = 'published'")).length;
const processed = async () => (await system.fulfilment('SELECT message_id FROM processed_messages')).length;
const emailsTo = async (id: string) =>
  (await system.fulfilment('SELECT id FROM emails WHERE customer_id = ?', [id])).length;
const directoryOf = async (id: string) =>
  (await system.fulfilment('SELECT name, version FROM customer_directory WHERE customer_id = ?', [id]))[0];

async function rename(api: Api, id: string, version: number, name: string): Promise<void> {
  const { status } = await send(api, 'PATCH', `/customers/${id}`, { name }, { 'if-match': `"${version}"` });
  expect(status).toBe(200);
}

async function stop(...programs: { kill(signal: 'SIGTERM'): void; exited: Promise<unknown> }[]): Promise<void> {
  for (const program of programs) program.kill('SIGTERM');
  await Promise.all(programs.map(({ exited }) => exited));
}

it('K2: an outbox that is older than the queues: what it lost is named, and what it still has takes effect once', async () => {
  const marks = new Map<string, string>();
  const [api, worker] = [await system.api(), system.worker()];
  await worker.ready();
  const post = async (to: Api, mark: string): Promise<string> => {
    const id = await postCustomer(to, mark);
    marks.set(id, mark);
    return id;
  };
  let relay = system.relay();
  const kept = await post(api, 'kept');
  await expect.poll(processed, PATIENCE).toBe(2);
  await stop(relay);
  const pending = await post(api, 'pending');
  const backup = await backUp(system.schemas.shop);
  const backedUp = Math.max(...(await system.shop('SELECT seq FROM outbox')).map(({ seq }) => Number(seq)));

  relay = system.relay();
  const lost = await post(api, 'lost');
  await rename(api, kept, 1, 'Lost');
  await expect.poll(processed, PATIENCE).toBe(7);
  await stop(worker);
  await post(api, 'queued');
  await expect.poll(published, PATIENCE).toBe(5);
  const messages = await messagesOf(marks);
  await stop(api, relay);
  await backup.restore();

  // Before anything runs again.
  const found = await verify();
  expect(found).toMatchObject({ code: 1, verdict: 'missing' });
  const gone = ['kept 2 at customer-directory', 'lost 1 at customer-directory', 'lost 1 at welcome-email'];
  expect(about(found, messages)).toEqual([...gone.map((each) => `in no outbox: ${each}`), 'pending: pending 1']);

  const [again, handling] = [await system.api(), system.worker()];
  await handling.ready();
  system.relay();
  const next = await post(again, 'next');
  const [row] = await system.shop('SELECT seq, id FROM outbox WHERE aggregateid = ?', [next]);
  expect(Number(row?.['seq'])).toBe(backedUp + 1); // given to another message before
  await expect.poll(async () => [await published(), await emailsTo(next)], PATIENCE).toEqual([3, 1]);
  await expect.poll(() => directoryOf(next), PATIENCE).toBeDefined();
  await expect.poll(processed, PATIENCE).toBe(11); // with what was in the queues
  const after = await verify();
  expect(after.code).toBe(1);
  const queued = ['queued 1 at customer-directory', 'queued 1 at welcome-email'];
  expect(about(after, messages)).toEqual([...gone, ...queued].map((each) => `in no outbox: ${each}`));

  const sent = await oncebox('outbox', 'republish', '--since', '1h');
  expect(sent).toMatchObject({ code: 0, counts: { republished: 3 } });
  await expect.poll(published, PATIENCE).toBe(3);
  for (const id of [kept, pending, next, lost]) expect([id, await emailsTo(id)]).toEqual([id, 1]);
  expect((await oncebox('verify', '--settled-for', '0s')).code).toBe(0);

  // The reader has a version that its source has lost, and takes none that is not newer.
  await rename(again, kept, 1, 'Second');
  await expect.poll(async () => [await published(), await processed()], PATIENCE).toEqual([4, 12]);
  expect(await directoryOf(kept)).toEqual({ name: 'Lost', version: 2 });
  await rename(again, kept, 2, 'Third');
  await expect.poll(() => directoryOf(kept), PATIENCE).toEqual({ name: 'Third', version: 3 });
});

it('K3: a broker whose disk is gone: what was in its queues is named and sent again, and every change has one effect', async () => {
  const [api, worker, relay] = [await system.api(), system.worker(), system.relay()];
  await worker.ready();
  const accepted = [await postCustomer(api, 'handled')];
  await expect.poll(processed, PATIENCE).toBe(2);
  await stop(worker);
  accepted.push(await postCustomer(api, 'queued-1'), await postCustomer(api, 'queued-2'));
  await expect.poll(published, PATIENCE).toBe(3);
  await stop(relay);
  accepted.push(await postCustomer(api, 'pending'));

  await system.vhost.reset();
  await system.worker().ready(); // its queues come before the relay: a message goes to those that are bound
  system.relay();
  await expect.poll(processed, PATIENCE).toBe(4);
  const found = await verify();
  expect(found).toMatchObject({ code: 1, counts: { 'not handled': 4 } });

  const dry = await oncebox('outbox', 'republish', '--since', '1h', '--dry-run');
  expect(dry).toMatchObject({ code: 0, counts: { 'would republish': 4 } });
  expect((await verify()).counts).toEqual({ 'not handled': 4 });
  expect(await oncebox('outbox', 'republish', '--since', '1h')).toMatchObject({ code: 0, counts: { republished: 4 } });
  await checkInvariants(system, { accepted });
  await expect.poll(verify, PATIENCE).toMatchObject({ code: 0, verdict: 'proven', checked: 4 });
  // By the ids that `verify` names it is the same.
  const ids = [...new Set(found.findings.map(({ id }: Found) => id))].flatMap((id) => ['--id', String(id)]);
  expect(await oncebox('outbox', 'republish', ...ids)).toMatchObject({ code: 0, counts: { republished: 2 } });
  await checkInvariants(system, { accepted });
});

it("K4: a consumer's schema from a backup: what it had handled since is named, sent again and handled once", async () => {
  const [api, worker] = [await system.api(), system.worker()];
  await worker.ready();
  system.relay();
  const accepted = [await postCustomer(api, 'before')];
  await expect.poll(processed, PATIENCE).toBe(2);
  const backup = await backUp(system.schemas.fulfilment);
  accepted.push(await postCustomer(api, 'after-1'), await postCustomer(api, 'after-2'));
  await rename(api, accepted[0] ?? '', 1, 'After');
  await expect.poll(processed, PATIENCE).toBe(7);
  await stop(worker);
  accepted.push(await postCustomer(api, 'queued'));
  await expect.poll(published, PATIENCE).toBe(5);
  await backup.restore();

  // Those in the queue are not handled yet either; to send them a second time does no harm.
  expect(await verify()).toMatchObject({ code: 1, counts: { 'not handled': 7 } });
  await system.worker().ready();
  await expect.poll(processed, PATIENCE).toBe(4);
  expect(await verify()).toMatchObject({ code: 1, counts: { 'not handled': 5 } });
  expect(await oncebox('outbox', 'republish', '--since', '1h')).toMatchObject({ code: 0, counts: { republished: 5 } });
  await checkInvariants(system, { accepted });
  await expect.poll(verify, PATIENCE).toMatchObject({ code: 0, verdict: 'proven', checked: 5 });
});
