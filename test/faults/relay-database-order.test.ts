import { type Pool, type Transaction, transaction } from '@oncebox/mysql';
import { expect, it } from 'vitest';
import type { Customer } from '../../apps/api/src/customers/schemas.ts';
import { changeCustomer, createCustomer, deliver, newSystem, shopPool } from '../support/customers.ts';
import { checkInvariants } from '../support/invariants.ts';
import type { Program } from '../support/processes.ts';

const PATIENCE = { timeout: 30_000, interval: 50 };

/** For how long the writers write; a minute and more for a long look. */
const SECONDS = Number(process.env['ONCEBOX_FAULT_SECONDS'] ?? 5);

/** Whatever stands in its way shows: it is not tried again. */
const once = { attempts: 1 };

/** Creates a customer and changes it so many times, each in a transaction of its own. */
async function write(pool: Pool, changes: number): Promise<Customer> {
  let customer = await transaction(pool, createCustomer, once);
  for (let n = 0; n < changes; n += 1) customer = await transaction(pool, (tx) => changeOften(tx, customer, 1), once);
  return customer;
}

async function changeOften(tx: Transaction, customer: Customer, changes: number): Promise<Customer> {
  let current = customer;
  for (let n = 0; n < changes; n += 1) current = await changeCustomer(tx, current);
  return current;
}

const toldOf = (customers: readonly Customer[]) => ({
  accepted: customers.map(({ id }) => id),
  versions: new Map(customers.map(({ id, version }) => [id, version])),
});

/** What a pass or a look has failed with. */
const failuresOf = (relays: readonly Program[]) =>
  relays.flatMap(({ lines }) => lines.filter(({ msg }) => /^(Draining|Waiting for database)/.test(msg)));

it('11: a message that commits late, below one that is published already, is published too', async () => {
  const system = await newSystem();
  const pool = shopPool(system);
  await deliver(system);
  const [written, commit] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  // So many that both have some in each partition.
  const late = transaction(pool, async (tx) => {
    const customers: Customer[] = [];
    while (customers.length < 50) customers.push(await createCustomer(tx));
    written.resolve();
    await commit.promise;
    return customers;
  });
  await written.promise;
  const early = await Promise.all(Array.from({ length: 50 }, () => write(pool, 0)));
  const published = () => system.shop("SELECT seq FROM outbox WHERE state = 'published' ORDER BY seq");
  await expect.poll(async () => (await published()).length, PATIENCE).toBe(50);
  const [lowest] = await published();
  commit.resolve();
  const all = [...early, ...(await late)];
  const [below] = await system.shop('SELECT COUNT(*) AS n FROM outbox WHERE seq < ?', [String(lowest?.['seq'])]);
  expect(Number(below?.['n'])).toBe(50);
  await checkInvariants(system, toldOf(all));
});

it('12: three relays keep a hundred keys in order', async () => {
  const system = await newSystem();
  await system.worker().ready();
  // Small passes and many lanes: partitions change hands all the time.
  const relays = [1, 2, 3].map(() => system.relay({ RELAY_BATCH: '16', RELAY_LANES: '4', RELAY_POLL_MS: '5' }));
  await Promise.all(relays.map((relay) => relay.ready()));
  const pool = shopPool(system, 8);
  // Several changes in a transaction, so that a pass finds more than one message of a key.
  const customers = await Promise.all(
    Array.from({ length: 100 }, async () => {
      let customer = await transaction(pool, createCustomer, once);
      for (const changes of [1, 2, 3]) {
        customer = await transaction(pool, (tx) => changeOften(tx, customer, changes), once);
      }
      return customer;
    }),
  );
  await checkInvariants(system, toldOf(customers));
  const busy = relays.filter(({ lines }) => lines.some(({ msg }) => msg.startsWith('Published messages')));
  expect(busy).toHaveLength(3);
});

it('13: eight writers and four relays meet no deadlock and lose nothing', async () => {
  const system = await newSystem();
  await system.worker().ready();
  const relays = [1, 2, 3, 4].map(() => system.relay({ RELAY_LANES: '4', RELAY_BATCH: '50', RELAY_POLL_MS: '5' }));
  await Promise.all(relays.map((relay) => relay.ready()));
  const end = Date.now() + SECONDS * 1_000;
  const pool = shopPool(system, 8);
  const customers: Customer[] = [];
  const writer = async (): Promise<void> => {
    while (Date.now() < end) customers.push(await write(pool, 3));
  };
  // With one attempt each: a 1213 or 1205 would fail the test here.
  await Promise.all(Array.from({ length: 8 }, writer));
  console.log(`${customers.length} customers with 4 messages each in ${SECONDS} s`);
  await checkInvariants(system, toldOf(customers));
  expect(failuresOf(relays)).toEqual([]);
});
