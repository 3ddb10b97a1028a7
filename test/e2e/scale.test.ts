import { afterAll, beforeAll, expect, inject, test, vi } from 'vitest';
import { createSystem, postCustomer, type System } from '../support/system.ts';

const PATIENCE = { timeout: 60_000, interval: 50 };
const CUSTOMERS = 100;
/** Above the patience, so that a condition that does not come true says which it is. */
vi.setConfig({ testTimeout: 180_000 });

let system: System;
beforeAll(async () => {
  system = await createSystem(inject('servers'));
});
afterAll(() => system?.drop());

test('with three relays and three workers, customers posted in parallel make one e-mail and one directory entry each', async () => {
  const three = [1, 2, 3];
  const relays = three.map(() => system.relay());
  const workers = three.map(() => system.worker());
  const api = await system.api();
  await Promise.all([...relays, ...workers].map((program) => program.ready()));

  const posted = await Promise.all(Array.from({ length: CUSTOMERS }, (_, index) => postCustomer(api, `n${index}`)));
  const count = async (column: string, table: string) => {
    const [found] = await system.fulfilment(`SELECT COUNT(*) AS n, COUNT(DISTINCT ${column}) AS one FROM ${table}`);
    return { rows: Number(found?.['n']), distinct: Number(found?.['one']) };
  };
  const each = { rows: CUSTOMERS, distinct: CUSTOMERS };
  await expect.poll(() => count('message_id', 'emails'), PATIENCE).toEqual(each);
  await expect.poll(() => count('customer_id', 'customer_directory'), PATIENCE).toEqual(each);
  // The last acknowledgement is still on its way when its effect can be seen.
  await expect.poll(() => system.vhost.depth('welcome-email'), PATIENCE).toBe(0);
  expect(await count('customer_id', 'emails')).toEqual(each);
  const processed = await system.fulfilment(
    'SELECT consumer, COUNT(*) AS n FROM processed_messages GROUP BY consumer ORDER BY consumer',
  );
  expect(processed.map(({ consumer, n }) => [consumer, Number(n)])).toEqual([
    ['customer-directory', CUSTOMERS],
    ['welcome-email', CUSTOMERS],
  ]);

  // Each row by one relay, once; each message to one worker of a consumer, once.
  const outbox = async () => system.shop("SELECT id, aggregateid FROM outbox WHERE state = 'published' ORDER BY id");
  await expect.poll(async () => (await outbox()).length, PATIENCE).toBe(CUSTOMERS);
  const ids = (await outbox()).map(({ id }) => id);
  expect((await outbox()).map(({ aggregateid }) => aggregateid).sort()).toEqual(posted.toSorted());
  const published = () =>
    relays
      .flatMap(({ lines }) => lines.map(({ msg }) => /^Published messages: \[(.*)\]$/.exec(msg)?.[1] ?? ''))
      .flatMap((list) => list.split(' ').filter(Boolean));
  await expect.poll(() => published().sort(), PATIENCE).toEqual(ids);
  const handled = workers.flatMap(({ lines }) => lines).filter(({ msg }) => msg.startsWith('Handling ['));
  expect(handled.map(({ consumer, messageId }) => `${consumer} ${messageId}`).sort()).toEqual(
    ['customer-directory', 'welcome-email'].flatMap((consumer) => ids.map((id) => `${consumer} ${id}`)),
  );
});
