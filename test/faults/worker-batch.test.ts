import { expect, it } from 'vitest';
import {
  deadLetters,
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
  useFulfilment,
} from '../support/fulfilment.ts';

/** Many messages in one transaction: what happens to one of them, or to the process, is no matter of the others. */

useFulfilment();

it('46: one bad message of 50 leaves neither effect nor record, the others commit, and its retry is no duplicate', async () => {
  await system.fulfilment(
    `CREATE TRIGGER once_bad BEFORE INSERT ON emails FOR EACH ROW
       IF NEW.recipient LIKE 'bad%' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'bad'; END IF`,
  );
  // All of them are in the queue before a worker comes, so that it gets them in batches.
  const first = await readyWorker();
  first.kill('SIGTERM');
  await first.exited;
  const others = sendMany(25);
  const bad = send(newCustomer({ email: 'bad@example.com' }));
  others.push(...sendMany(24));
  const worker = await readyWorker({ WORKER_RETRY_DELAYS_MS: Array(50).fill(300).join() });
  const attempts = () => handling(worker, bad).filter(({ consumer }) => consumer === 'welcome-email').length;
  await expect.poll(() => emails(others), PATIENCE).toEqual(others.toSorted());
  await expect.poll(attempts, PATIENCE).toBeGreaterThan(1);
  expect(await processed('welcome-email', [bad])).toEqual([]);
  expect(await emails([bad])).toEqual([]);
  await system.fulfilment('DROP TRIGGER once_bad');
  await expectOneEffectEach([...others, bad]);
  expect(await deadLetters('welcome-email')).toEqual([]);
});

it.each(['recorded', 'handled', 'committed'])(
  'a worker that is killed when a message of a batch is %s: each takes effect once',
  async (point) => {
    const ids = sendMany(200);
    const killed = startWorker({ ONCEBOX_FAILPOINTS: `inbox:${point}=kill@120` });
    expect(await killed.exited).toBe('SIGKILL');
    expect(killed.lines.map(({ msg }) => msg)).toContainEqual(expect.stringMatching(/^failpoint /));
    await readyWorker();
    await expectOneEffectEach(ids);
  },
);
