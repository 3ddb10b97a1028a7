import { expect, it, vi } from 'vitest';
import { deliver, newSystem } from '../support/customers.ts';
import { cutAtCommit } from '../support/cut-at-commit.ts';
import { checkInvariants } from '../support/invariants.ts';
import { type Api, postCustomer, send } from '../support/system.ts';

const PATIENCE = { timeout: 20_000, interval: 50 };

/** What the client was told while its api was killed: the mark of each customer it posted is in one of them. */
async function postUntilKilled(api: Api, marks: readonly string[]) {
  const accepted: string[] = [];
  for (const mark of marks) {
    try {
      accepted.push(await postCustomer(api, mark));
    } catch {
      return { accepted, unknown: [`${mark}@example.com`] };
    }
  }
  throw new Error('The api was not killed');
}

const marks = (word: string): string[] => Array.from({ length: 10 }, (_, n) => `${word}-${n}`);

it('1: an api that is killed before or after COMMIT has announced what is committed, and nothing else', async () => {
  const system = await newSystem();
  // One request at a time, so that the transaction that was hit is the one whose answer is missing.
  const before = await postUntilKilled(
    await system.api({ ONCEBOX_FAILPOINTS: 'transaction:committing=kill@5' }),
    marks('before'),
  );
  const after = await postUntilKilled(
    await system.api({ ONCEBOX_FAILPOINTS: 'transaction:committed=kill@5' }),
    marks('after'),
  );
  const exists = (emails: string[]) => system.shop('SELECT email FROM customers WHERE email IN (?)', [emails]);
  expect(await exists(before.unknown)).toEqual([]);
  expect(await exists(after.unknown)).toHaveLength(1);

  await deliver(system);
  await checkInvariants(system, {
    accepted: [...before.accepted, ...after.accepted],
    unknown: [...before.unknown, ...after.unknown],
  });
});

it('4: a client whose answer to COMMIT was lost learns by its Idempotency-Key what became of it', async () => {
  const system = await newSystem();
  const accepted: string[] = [];
  for (const arrives of [true, false]) {
    const name = arrives ? 'arrives' : 'is lost';
    const body = { email: `${arrives}@example.com`, name };
    const request = (api: Api) => send(api, 'POST', '/customers', body, { 'idempotency-key': `"${name}"` });
    const proxy = await cutAtCommit(system.schemas.shop.url, arrives);
    const unlucky = await system.api({ API_DATABASE_URL: proxy.url });
    expect((await request(unlucky)).status).toBe(503);
    unlucky.kill('SIGTERM');
    await unlucky.exited;
    await proxy.close();

    const api = await system.api();
    const answer = await vi.waitFor(async () => {
      const repeated = await request(api);
      expect(repeated.status).toBe(201); // 409 while the server is still busy with the first
      return repeated;
    }, PATIENCE);
    expect(answer.headers.get('idempotency-replayed')).toBe(arrives ? 'true' : null);
    accepted.push(String(answer.body['id']));
  }
  await deliver(system);
  await checkInvariants(system, { accepted });
});

it('5: fifty identical POSTs at once make one customer; the same key with another body is refused', async () => {
  const system = await newSystem();
  const api = await system.api();
  const body = { email: 'ada@example.com', name: 'Ada' };
  const key = { 'idempotency-key': '"fifty"' };
  const answers = await Promise.all(Array.from({ length: 50 }, () => send(api, 'POST', '/customers', body, key)));
  const created = answers.filter(({ status }) => status === 201);
  // Refused at once while the first is under way; after it, its stored answer.
  expect(answers.filter(({ status }) => status !== 201 && status !== 409)).toEqual([]);
  expect(created.filter(({ headers }) => headers.get('idempotency-replayed') === null)).toHaveLength(1);
  const again = await send(api, 'POST', '/customers', body, key);
  const ids = new Set([...created, again].map((answer) => String(answer.body['id'])));
  expect(ids.size).toBe(1);

  const other = await send(api, 'POST', '/customers', { ...body, email: 'bob@example.com' }, key);
  expect(other.status).toBe(422);

  await deliver(system);
  await checkInvariants(system, { accepted: ids, refused: ['bob@example.com'] });
});
