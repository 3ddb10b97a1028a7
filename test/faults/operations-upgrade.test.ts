import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { STEPS_TABLE, sendStep } from '../support/ordered.ts';
import { type Line, start } from '../support/processes.ts';
import { postCustomer } from '../support/system.ts';
import { customers, type Ground, HERE, newGround, orders, PATIENCE, type Side } from '../upgrade/fleet.ts';
import { type Release, unpackLastRelease } from '../upgrade/release.ts';

/**
 * Programs of the last release beside these, on one schema and one vhost. What fails here breaks a
 * running installation: a migration that old code cannot live with, a queue declared otherwise, a
 * header misread.
 */

// Each starts a dozen processes: ten seconds here, minutes on a busy machine.
vi.setConfig({ testTimeout: 300_000 });

let last: Release;
beforeAll(async () => {
  last = await unpackLastRelease();
  console.log(`the last release is ${last.commit}`);
});
afterAll(() => last?.remove());

const DIRECTIONS = [
  { change: 'an upgrade', from: 'the last release', to: 'this one' },
  { change: 'its rollback', from: 'this one', to: 'the last release' },
] as const;
const rootOf = (name: string): string => (name === 'this one' ? HERE : last.root);

/** Both releases, on schemas that the last one has made. */
async function meet(from: string, to: string): Promise<{ ground: Ground; first: Side; second: Side }> {
  const ground = await newGround();
  const [first, second] = [ground.side(from, rootOf(from)), ground.side(to, rootOf(to))];
  await ground.side('the last release', last.root).migrate();
  return { ground, first, second };
}

describe.each(DIRECTIONS)('$change', ({ from, to }) => {
  it.each([
    { what: 'customers', startWork: customers },
    { what: 'orders', startWork: orders },
  ])(
    `K1: ${from}, then ${to} beside it, then ${to} alone: no $what is lost or doubled, and nothing is given up`,
    async ({ startWork }) => {
      const { ground, first, second } = await meet(from, to);
      const here = ground.side('this one', HERE);
      if (from === 'this one') await here.migrate();
      const [olds, apis] = [await first.join(), [] as { url: string }[]];
      apis.push(olds.api);
      const work = await startWork(ground, apis);
      await work.more(30);
      if (to === 'this one') {
        await here.migrate(); // while those of the last release work
        await work.more(30);
      }
      const news = await second.join();
      apis.push(news.api);
      await work.more(60);
      apis.shift();
      await olds.leave();
      await work.more(30);
      await work.prove();

      expect(ground.complaints()).toEqual([]);
      expect(await ground.fulfilment('SELECT consumer, reason FROM dead_letters')).toEqual([]);
      for (const side of [first, second]) {
        await side.oncebox('status');
        // Proof wants every message handled, those of consumers too that the work did not wait for.
        const verified = () => side.oncebox('verify', '--settled-for', '0s').then(() => 'proven', String);
        await expect.poll(verified, PATIENCE).toBe('proven');
      }
      await news.leave();
    },
  );

  it(`K1: what ${from} fails at, ${to} tries with the attempts noted, and each replays the dead letters of the other`, async () => {
    const { ground, first, second } = await meet(from, to);
    await ground.side('this one', HERE).migrate();
    await ground.fulfilment('RENAME TABLE emails TO emails_away');
    const olds = await first.join({ WORKER_RETRY_DELAYS_MS: '2000,2000,2000' });
    for (const n of [1, 2, 3]) await postCustomer(olds.api, `unlucky-${n}`);
    await expect.poll(() => failures(olds.worker.lines).length, PATIENCE).toBe(3);
    await olds.leave();

    // Its retries wait for another time, in queues of their own.
    const news = await second.join({ WORKER_RETRY_DELAYS_MS: '300,300,300' });
    const letters = () => ground.fulfilment('SELECT attempts, state FROM dead_letters');
    await expect.poll(letters, PATIENCE).toEqual(Array(3).fill({ attempts: 4, state: 'dead' }));
    expect(failures(news.worker.lines).map(({ attempts }) => attempts)).not.toContain(1);
    await news.leave();

    await ground.fulfilment('RENAME TABLE emails_away TO emails');
    const again = await first.join();
    await second.oncebox('dead', 'replay', '--all');
    const emails = () => ground.fulfilment('SELECT COUNT(*) AS n FROM emails');
    await expect.poll(emails, PATIENCE).toEqual([{ n: 3 }]);
    await expect.poll(letters, PATIENCE).toEqual(Array(3).fill({ attempts: 4, state: 'replayed' }));
    await again.leave();
  });

  it(`K1: keys that an ordered consumer of ${from} holds go on in their order with ${to}`, async () => {
    const { ground } = await meet(from, to);
    await ground.side('this one', HERE).migrate();
    await ground.fulfilment(STEPS_TABLE);
    const worker = (name: string, fails: string) =>
      start(
        'test/support/ordered-worker.ts',
        { WORKER_DATABASE_URL: ground.schemas.fulfilment.adminUrl, AMQP_URL: ground.vhost.amqpUrl, FAILS: fails },
        rootOf(name),
      );
    const failing = worker(from, '1');
    await failing.said(/^consuming$/);
    const channel = await ground.vhost.channel();
    const walks = ['a', 'b', 'c'];
    const send = (numbers: readonly number[]) => {
      for (const n of numbers) for (const walk of walks) sendStep(channel, walk, n);
    };
    send([0, 1, 2]);
    const held = async () => Number((await ground.fulfilment('SELECT COUNT(*) AS n FROM held_messages'))[0]?.['n']);
    await expect.poll(held, PATIENCE).toBe(9);
    const working = worker(to, '0');
    send([3, 4]);
    failing.kill('SIGTERM');
    expect(await failing.exited).toBe(0);
    const steps = () => ground.fulfilment('SELECT n FROM steps ORDER BY walk, seq');
    const expected = walks.flatMap(() => [0, 1, 2, 3, 4].map((n) => ({ n })));
    await expect.poll(steps, PATIENCE).toEqual(expected);
    await expect.poll(held, PATIENCE).toBe(0);
    expect(working.lines.filter(({ level }) => level === 'error')).toEqual([]);
  });
});

const failures = (lines: readonly Line[]): readonly Line[] =>
  lines.filter(({ msg }) => msg.startsWith('handling failed'));
