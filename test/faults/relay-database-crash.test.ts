import { expect, it } from 'vitest';
import { newSystem, type RecordedSystem } from '../support/customers.ts';
import { checkInvariants } from '../support/invariants.ts';
import type { Program } from '../support/processes.ts';
import { startProxy, type TcpProxy } from '../support/proxy.ts';
import { postCustomer } from '../support/system.ts';

/** Well below the lease that holds where a test gives none, 30 s: what comes within it was not waited for. */
const SOON = { timeout: 20_000, interval: 150 };

/** A system with a worker, and customers that are committed and not announced. */
async function withCustomers(count: number): Promise<{ system: RecordedSystem; accepted: string[] }> {
  const system = await newSystem();
  await system.worker().ready();
  return { system, accepted: await postCustomers(system, count, 'first') };
}

async function postCustomers(system: RecordedSystem, count: number, mark: string): Promise<string[]> {
  const api = await system.api();
  return await Promise.all(Array.from({ length: count }, (_, n) => postCustomer(api, `${mark}-${n}`)));
}

const ids = async (system: RecordedSystem, state: 'pending' | 'published'): Promise<string[]> =>
  (await system.shop('SELECT id FROM outbox WHERE state = ? ORDER BY id', [state])).map((row) => String(row['id']));

/** Open transactions on the shop's schema: a relay's claim is one. */
const claims = async ({ shop, schemas }: RecordedSystem): Promise<number> => {
  const found = await shop(
    `SELECT t.trx_id FROM information_schema.innodb_trx AS t
       JOIN information_schema.processlist AS p ON p.id = t.trx_mysql_thread_id WHERE p.db = ?`,
    [schemas.shop.name],
  );
  return found.length;
};

const publishedBy = ({ lines }: Program): string[] =>
  lines.flatMap(({ msg }) => /^Published messages: \[(.*)\]$/.exec(msg)?.[1]?.split(' ') ?? []).sort();

it('17: killed after the confirms and before the commit, the same ids come again and have one effect', async () => {
  const { system, accepted } = await withCustomers(20);
  for (const point of ['published', 'settled']) {
    const killed = system.relay({ ONCEBOX_FAILPOINTS: `relay:${point}=kill` });
    expect(await killed.exited).toBe('SIGKILL');
    expect(await ids(system, 'published')).toEqual([]);
  }
  const { length: sent } = await system.recording.read();

  system.relay();
  const { duplicatesOnTheWire } = await checkInvariants(system, { accepted });
  expect(duplicatesOnTheWire).toBe(sent);
});

it('18: what a relay has claimed is free when it is killed, long before its lease would end', async () => {
  const { system, accepted } = await withCustomers(20);
  const killed = system.relay({ ONCEBOX_FAILPOINTS: 'relay:claimed=kill', RELAY_LEASE_SECONDS: '600' });
  expect(await killed.exited).toBe('SIGKILL');
  await expect.poll(() => claims(system), SOON).toBe(0);

  const other = system.relay();
  await expect.poll(() => publishedBy(other), SOON).toHaveLength(accepted.length);
  const { duplicatesOnTheWire } = await checkInvariants(system, { accepted });
  expect(duplicatesOnTheWire).toBe(0);
});

it('19: what a frozen or a cut-off relay holds is free after its lease, and when it is back it can settle nothing', async () => {
  const { system, accepted } = await withCustomers(20);
  const database = await startProxy(system.schemas.shop.url);
  const lease = { RELAY_LEASE_SECONDS: '4', ONCEBOX_FAILPOINTS: 'relay:published=stop' };
  const settled = () => system.shop('SELECT id, published_at, attempts FROM outbox ORDER BY id');

  const frozen = system.relay(lease);
  await frozen.said(/^failpoint/);
  const other = system.relay();
  await expect.poll(() => ids(system, 'pending'), SOON).toEqual([]);
  // The commit comes before the line that tells of it.
  await expect.poll(() => publishedBy(other), SOON).toHaveLength(accepted.length);
  const before = await settled();
  await frozen.resume();
  await frozen.said(/^Waiting for database/); // its session is gone
  await frozen.ready();
  expect(await settled()).toEqual(before);
  expect(publishedBy(frozen)).toEqual([]);
  for (const relay of [frozen, other]) {
    relay.kill('SIGTERM');
    await relay.exited;
  }

  // The same with a process that runs and a network that is gone without a word: half-open connections.
  accepted.push(...(await postCustomers(system, 20, 'more')));
  const cutOff = system.relay({ ...lease, RELAY_DATABASE_URLS: through(database, system) });
  await cutOff.said(/^failpoint/);
  database.blackhole('toServer', 'toClient');
  await cutOff.resume();
  const another = system.relay();
  await expect.poll(() => ids(system, 'pending'), SOON).toEqual([]);
  await expect.poll(() => publishedBy(another), SOON).toHaveLength(20);
  await database.pass();
  await cutOff.ready();
  expect(publishedBy(cutOff)).toEqual([]);

  const { duplicatesOnTheWire } = await checkInvariants(system, { accepted });
  expect(duplicatesOnTheWire).toBeGreaterThan(1);
});

const through = ({ address }: TcpProxy, { schemas }: RecordedSystem): string =>
  schemas.relayUrls
    .split(',')
    .map((text) => Object.assign(new URL(text), { host: address }).href)
    .join(',');
