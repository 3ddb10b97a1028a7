import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { transaction } from '@oncebox/mysql';
import { createRelay } from '@oncebox/outbox';
import { createPublisher } from '@oncebox/rabbitmq';
import { expect, it, onTestFinished } from 'vitest';
import { createCustomer, deliver, newSystem, type RecordedSystem, shopPool } from '../support/customers.ts';
import { checkInvariants } from '../support/invariants.ts';
import type { Program } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import { quiet } from '../support/walks.ts';

/** Small in `make test`. A million is what the table of failures asks for: ONCEBOX_FAULT_ROWS=1000000, some minutes. */
const ROWS = Number(process.env['ONCEBOX_FAULT_ROWS'] ?? 25_000);
const PATIENCE = { timeout: 60_000 + ROWS * 2, interval: 200 };
/** Of a test that waits for so many. */
const TIMEOUT = PATIENCE.timeout + 60_000;

/** Rows of a thousand keys, of 2 KiB each, which no consumer handles. */
async function fill({ shop }: RecordedSystem, rows: number): Promise<void> {
  const columns = 'INSERT INTO outbox (id, aggregatetype, aggregateid, type, version, payload, delivery)';
  const payload = JSON.stringify({ filler: 'x'.repeat(2_000) });
  await shop(`${columns} VALUES (UUID(), 'filler', '0', 'Filler', 1, ?, 'optional')`, [payload]);
  for (let n = 1; n < rows; n *= 2) {
    const more = Math.min(n, rows - n);
    await shop(
      `${columns} SELECT UUID(), 'filler', seq % 1000, type, 1, payload, 'optional' FROM outbox LIMIT ${more}`,
    );
  }
}

const pending = async ({ shop }: RecordedSystem): Promise<number> => {
  const [row] = await shop("SELECT COUNT(*) AS n FROM outbox WHERE state = 'pending'");
  return Number(row?.['n']);
};

const publishedBy = ({ lines }: Program): string[] =>
  lines.flatMap(({ msg }) => /^Published messages: \[(.*)\]$/.exec(msg)?.[1]?.split(' ') ?? []);

it(
  '14: an open read view, which keeps every settled row in the index, does not stop what comes behind',
  async () => {
    const system = await newSystem();
    const reader = await shopPool(system).getConnection();
    await reader.query('SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ');
    await reader.query('START TRANSACTION WITH CONSISTENT SNAPSHOT');
    await deliver(system);
    await fill(system, ROWS);
    const pool = shopPool(system);
    const accepted: string[] = [];
    /** From commit to published, of one message after the other. */
    const latencies = async (): Promise<number[]> => {
      const found: number[] = [];
      for (let n = 0; n < 10; n += 1) {
        const begun = performance.now();
        accepted.push((await transaction(pool, createCustomer)).id);
        await expect.poll(() => pending(system), { ...PATIENCE, interval: 5 }).toBe(0);
        found.push(Math.round(performance.now() - begun));
      }
      return found.toSorted((a, b) => a - b);
    };
    await expect.poll(() => pending(system), PATIENCE).toBe(0);
    console.log(`${ROWS} rows settled under an open read view: a message takes ${(await latencies()).join(' ')} ms`);
    await reader.rollback();
    reader.release();
    console.log(`and without it: ${(await latencies()).join(' ')} ms`);
    await checkInvariants(system, { accepted });
  },
  TIMEOUT,
);

it(
  '15: a backlog that is larger than the memory of the relay goes out, each message once',
  async () => {
    const system = await newSystem();
    await system.worker().ready();
    await fill(system, ROWS);
    const accepted = [(await transaction(shopPool(system), createCustomer)).id];
    const begun = performance.now();
    // 2 KiB a row: the default size would fill this heap, and a million rows would fill 256 MiB. 20 of it is the code that the relay loads.
    const heap = ROWS <= 100_000 ? 44 : 256;
    const relay = system.relay({ NODE_OPTIONS: `--max-old-space-size=${heap}` });
    await expect.poll(() => pending(system), PATIENCE).toBe(0);
    const seconds = (performance.now() - begun) / 1_000;
    console.log(`${ROWS} rows of 2 KiB in ${seconds.toFixed(1)} s with a heap of ${heap} MiB`);
    // The commit comes before the line that tells of it.
    await expect.poll(() => publishedBy(relay), { timeout: 20_000, interval: 100 }).toHaveLength(ROWS + 1);
    expect(new Set(publishedBy(relay)).size).toBe(ROWS + 1);
    await checkInvariants(system, { accepted });
  },
  TIMEOUT,
);

it('16: with a database that is slower than the poll there is one pass a lane, and never another beside it', async () => {
  const system = await newSystem();
  await system.worker().ready();
  const database = await startProxy(system.schemas.relayUrls.split(',')[0] ?? '');
  const publisher = createPublisher({ urls: [system.vhost.amqpUrl], name: 'relay under test', logger: quiet });
  const relay = createRelay({ databaseUrls: [database.url], publisher, logger: quiet, lanes: 1, pollMs: 1, batch: 5 });
  onTestFinished(async () => {
    await relay.stop();
    await publisher.close();
  });
  await expect.poll(() => publisher.ready, PATIENCE).toBe(true);
  let underWay = 0;
  let most = 0;
  let passes = 0;
  const begin = () => {
    passes += 1;
    underWay += 1;
    most = Math.max(most, underWay);
  };
  const end = () => {
    underWay -= 1;
  };
  subscribe('oncebox:relay:claimed', begin);
  subscribe('oncebox:relay:committed', end);
  onTestFinished(() => {
    unsubscribe('oncebox:relay:claimed', begin);
    unsubscribe('oncebox:relay:committed', end);
  });
  database.latency(20);
  const pool = shopPool(system);
  const customers = await Promise.all(Array.from({ length: 40 }, () => transaction(pool, createCustomer)));
  relay.start();
  const { duplicatesOnTheWire } = await checkInvariants(system, { accepted: customers.map(({ id }) => id) });
  expect(duplicatesOnTheWire).toBe(0);
  // A pass takes at most one row of each of the 16 partitions.
  expect(passes).toBeGreaterThanOrEqual(3);
  expect(most).toBe(1);
});
