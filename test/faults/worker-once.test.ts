import { expect, it } from 'vitest';
import {
  CONSUMERS,
  emails,
  expectOneEffectEach,
  handling,
  newCustomer,
  PATIENCE,
  processed,
  readyWorker,
  send,
  sendMany,
  startWorker,
  system,
  transactionsThatWait,
  useFulfilment,
} from '../support/fulfilment.ts';

/** However often a message comes, and wherever its worker dies, it takes effect once. */

useFulfilment();

it('34: killed before the commit a message has no effect, killed between commit and ack it comes again; both take effect once', async () => {
  for (const [point, isCommitted] of [
    ['inbox:handled', false],
    ['inbox:committed', true],
  ] as const) {
    const ids = sendMany(20);
    const killed = startWorker({ ONCEBOX_FAILPOINTS: `${point}=kill@5` });
    expect(await killed.exited).toBe('SIGKILL');
    // Of the fifth it is known where it died, since the signal came from within.
    const done = await Promise.all(CONSUMERS.map((consumer) => processed(consumer, ids)));
    if (isCommitted) expect(done.flat().length).toBeGreaterThanOrEqual(5);
    expect((await emails(ids)).toString()).toBe(done[1]?.toString());

    const next = await readyWorker();
    await expectOneEffectEach(ids);
    const again = CONSUMERS.flatMap((consumer, index) =>
      handling(next, ...(done[index] ?? [])).filter((line) => line['consumer'] === consumer),
    );
    if (isCommitted) expect(again.length).toBeGreaterThan(0);
    next.kill('SIGTERM');
    expect(await next.exited).toBe(0);
  }
});

it('35: a handler that fails after its inbox row is written leaves no inbox row, and its message is not taken for a duplicate', async () => {
  const worker = await readyWorker({ WORKER_RETRY_DELAYS_MS: Array(100).fill(100).join() });
  await system.fulfilment('RENAME TABLE emails TO emails_away');
  const id = send();
  await expect.poll(() => handling(worker, id).length, PATIENCE).toBeGreaterThan(3);
  expect(await processed('welcome-email', [id])).toEqual([]);
  await system.fulfilment('RENAME TABLE emails_away TO emails');
  await expectOneEffectEach([id]);
});

it('36: of two copies in two workers at once the second waits for the first, and is then a duplicate', async () => {
  const queue = 'welcome-email';
  // Stops itself when it has written the inbox row, and so holds it.
  const first = await readyWorker({ ONCEBOX_FAILPOINTS: 'inbox:recorded=stop' });
  const payload = newCustomer();
  const id = send(payload, { queue });
  await first.said(/^failpoint/);
  const second = await readyWorker();
  await expect
    .poll(() => {
      send(payload, { queue, messageId: id }); // some go to the one that has stopped
      return handling(second, id).length;
    }, PATIENCE)
    .toBeGreaterThan(0);
  // The server renews its view only when nobody has looked for 100 ms.
  await expect.poll(transactionsThatWait, { ...PATIENCE, interval: 200 }).toBeGreaterThan(0);
  expect(await emails([id])).toEqual([]);

  await first.resume();
  await expect.poll(() => processed(queue, [id]), PATIENCE).toEqual([id]);
  for (const worker of [first, second]) {
    worker.kill('SIGTERM');
    expect(await worker.exited).toBe(0);
    expect(worker.lines.filter(({ msg }) => msg.startsWith('handling failed'))).toEqual([]);
  }
  expect(await system.vhost.depth(queue)).toBe(0);
  expect(await emails([id])).toEqual([id]);
});

it('37: each consumer handles a message once, also when their worker dies between the two', async () => {
  const id = send();
  const killed = startWorker({ ONCEBOX_FAILPOINTS: 'inbox:committed=kill' });
  expect(await killed.exited).toBe('SIGKILL');
  const done = await Promise.all(CONSUMERS.map((consumer) => processed(consumer, [id])));
  expect(done.flat().length).toBeGreaterThanOrEqual(1);
  await readyWorker();
  await expectOneEffectEach([id]);
});

it('39: ids that differ by case, accent or trailing space are different messages', async () => {
  await readyWorker();
  const ids = ['a', 'A', 'ä', 'á', 'a ', ' a', 'ss', 'ß', 'ﬁ', 'fi'];
  const customers = ids.map((messageId) => {
    const customer = newCustomer();
    send(customer, { messageId });
    return customer.customerId;
  });
  await expectOneEffectEach(ids);
  const known = await system.fulfilment('SELECT customer_id FROM customer_directory WHERE customer_id IN (?)', [
    customers,
  ]);
  expect(known).toHaveLength(ids.length);
});
