import { expect, it } from 'vitest';
import {
  CONSUMERS,
  channel,
  deadLetters,
  emails,
  expectOneEffectEach,
  handling,
  lockTable,
  newCustomer,
  PATIENCE,
  processed,
  readyWorker,
  send,
  sendMany,
  startWorker,
  system,
  useFulfilment,
} from '../support/fulfilment.ts';

/** Messages that cannot be handled, now or ever, and what that does to the others: nothing. */

useFulfilment();

/** Dead letters of the tests before stay where they are. */
let buried = 0;

it('38: a message without an id is a dead letter of each consumer and has no effect, and the others are handled', async () => {
  await readyWorker();
  const nameless = newCustomer();
  const before = sendMany(5);
  send(nameless, { messageId: '' });
  const after = sendMany(5);
  for (const consumer of CONSUMERS) {
    await expect
      .poll(() => deadLetters(consumer), PATIENCE)
      .toEqual([
        {
          id: null,
          type: 'CustomerCreated',
          reason: expect.stringContaining('ONCEBOX_MALFORMED_MESSAGE'),
          attempts: 1,
        },
      ]);
  }
  buried += 2;
  await expectOneEffectEach([...before, ...after], { deadLetters: buried });
  const { customerId } = nameless;
  for (const table of ['emails', 'customer_directory']) {
    expect(await system.fulfilment(`SELECT 1 FROM ${table} WHERE customer_id = ?`, [customerId])).toEqual([]);
  }
});

it('40: a message that fails each time is a dead letter after its attempts, and the 99 beside it are handled', async () => {
  await system.fulfilment(
    `CREATE TRIGGER poisonous BEFORE INSERT ON emails FOR EACH ROW
       IF NEW.recipient LIKE 'poison%' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'poison@example.com'; END IF`,
  );
  const worker = await readyWorker();
  const others = sendMany(50);
  const poison = send(newCustomer({ email: 'poison@example.com' }));
  others.push(...sendMany(49));
  await expect
    .poll(() => deadLetters('welcome-email'), PATIENCE)
    .toContainEqual({ id: poison, type: 'CustomerCreated', reason: expect.not.stringContaining('@'), attempts: 4 });
  buried += 1;
  await expectOneEffectEach(others, { deadLetters: buried });
  // The consumer that has no trouble with it has handled it, and of the other nothing is left.
  expect(await processed('customer-directory', [poison])).toEqual([poison]);
  expect(await processed('welcome-email', [poison])).toEqual([]);
  expect(await emails([poison])).toEqual([]);
  expect(handling(worker, poison).filter(({ consumer }) => consumer === 'welcome-email')).toHaveLength(4);
  await system.fulfilment('DROP TRIGGER poisonous');
});

it('42: while every handling fails, a message comes again once a delay and not more often; then all take effect', async () => {
  const delayMs = 500;
  const worker = await readyWorker({ WORKER_RETRY_DELAYS_MS: Array(100).fill(delayMs).join() });
  await system.fulfilment('RENAME TABLE emails TO emails_away');
  const began = performance.now();
  const ids = sendMany(50);
  const deliveries = () => handling(worker, ...ids).filter(({ consumer }) => consumer === 'welcome-email').length;
  await expect.poll(deliveries, PATIENCE).toBeGreaterThan(ids.length * 4);
  // Counted first: what the clock shows afterwards is no less than what they had.
  const counted = deliveries();
  expect(counted).toBeLessThanOrEqual(ids.length * (1 + (performance.now() - began) / delayMs));
  await system.fulfilment('RENAME TABLE emails_away TO emails');
  await expectOneEffectEach(ids, { deadLetters: buried });
});

it('45: after its queues were deleted a worker declares them again, and handles what comes then', async () => {
  const worker = await readyWorker();
  const before = sendMany(5);
  await expectOneEffectEach(before, { deadLetters: buried });
  for (const consumer of CONSUMERS) await channel.deleteQueue(consumer);
  await expect
    .poll(
      async () => [
        ...(await system.vhost.bindings('welcome-email')),
        ...(await system.vhost.bindings('customer-directory')),
      ],
      PATIENCE,
    )
    .toEqual(['', 'customer.created', '', 'customer.created', 'customer.updated']);
  await worker.ready();
  await expectOneEffectEach(sendMany(20), { deadLetters: buried });
  expect(worker.lines.filter(({ msg }) => msg.includes('the broker ended the subscription'))).toHaveLength(2);
});

it('47: a version and a type that this worker does not know are dead letters with that reason, and it goes on', async () => {
  await readyWorker();
  const newer = send({ ...newCustomer(), loyalty: 'gold' }, { headers: { schemaversion: 9 }, queue: 'welcome-email' });
  const unheard = send({ from: 'a', to: 'b' }, { type: 'CustomersMerged', queue: 'welcome-email' });
  const known = sendMany(10);
  const reason = expect.stringContaining('ONCEBOX_UNKNOWN_MESSAGE');
  await expect
    .poll(async () => (await deadLetters('welcome-email')).slice(-2), PATIENCE)
    .toEqual(
      expect.arrayContaining([
        { id: newer, type: 'CustomerCreated', reason, attempts: 4 },
        { id: unheard, type: 'CustomersMerged', reason, attempts: 4 },
      ]),
    );
  buried += 2;
  await expectOneEffectEach(known, { deadLetters: buried });
});

it('48: a handler that does not end fails at its deadline, which is below the one of the broker, and takes effect later', async () => {
  const worker = await readyWorker({ WORKER_DEADLINE_MS: '300', WORKER_RETRY_DELAYS_MS: Array(100).fill(100).join() });
  // A table lock keeps every handler of this consumer waiting, longer than the server's own 50 s if nobody gave up before.
  const locked = await lockTable('customer_directory');
  const ids = sendMany(3);
  const late = () => worker.lines.filter(({ error }) => error === 'InboxError ONCEBOX_HANDLER_DEADLINE');
  await expect.poll(() => late().length, PATIENCE).toBeGreaterThan(3);
  expect(await processed('customer-directory', ids)).toEqual([]);
  await expect.poll(() => emails(ids), PATIENCE).toEqual(ids.toSorted());
  await locked.release();
  await expectOneEffectEach(ids, { deadLetters: buried });

  // RabbitMQ closes the channel of a consumer that holds a message for 30 minutes.
  const patient = startWorker({ WORKER_DEADLINE_MS: '1800000' });
  expect(await patient.exited).toBe(1);
  expect(JSON.stringify(patient.lines)).toContain('WORKER_DEADLINE_MS');
});
