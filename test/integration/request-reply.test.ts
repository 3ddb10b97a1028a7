import { defineRequest } from '@oncebox/message';
import { createRequester, type Requester, startResponder } from '@oncebox/rabbitmq';
import { v7 as uuidv7 } from 'uuid';
import { describe, expect, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import { channel, connect, PATIENCE, quiet, started, vhost } from '../support/consumers.ts';
import { startProxy } from '../support/proxy.ts';

/** Questions and answers over a real broker. Each test has a queue of its own. */

const LONG = { timeoutMs: 30_000 };

const newContract = () =>
  defineRequest({
    type: 'Double',
    owner: `c-${uuidv7()}`,
    question: z.strictObject({ n: z.int() }),
    answer: z.strictObject({ doubled: z.int() }),
  });
type Contract = ReturnType<typeof newContract>;
const double = async ({ n }: { n: number }) => ({ doubled: 2 * n });

/** One that is connected. */
async function newRequester(contract: Contract, url = vhost.amqpUrl, maxPending = 1_000): Promise<Requester> {
  const requester = createRequester({ urls: [url], name: 'asking', logger: quiet, maxPending });
  onTestFinished(() => requester.close());
  const isConnected = () =>
    requester.request(contract, { n: 0 }, { timeoutMs: 1 }).then(
      () => true,
      ({ code }) => code !== 'ONCEBOX_BROKER_LOST',
    );
  await expect.poll(isConnected, PATIENCE).toBe(true);
  return requester;
}

async function respond(contract: Contract, answer: typeof double = double, concurrency = 10) {
  const broker = connect('answering');
  const responder = startResponder({ broker, contract, answer, logger: quiet, concurrency });
  started.push(responder, { stop: () => broker.close() });
  await expect.poll(() => responder.consuming, PATIENCE).toBe(true);
  return responder;
}

/** Answers that wait until the test says so, but for that to the question of `newRequester`. */
function heldAnswers() {
  const begun: number[] = [];
  const gates = new Map<number, PromiseWithResolvers<void>>();
  const gate = (n: number) => {
    const found = gates.get(n) ?? Promise.withResolvers<void>();
    gates.set(n, found);
    return found;
  };
  const answer = async ({ n }: { n: number }) => {
    if (n !== 0) {
      begun.push(n);
      await gate(n).promise;
    }
    return { doubled: 2 * n };
  };
  return { begun, answer, release: (n: number) => gate(n).resolve() };
}

/** A responder of the test's own, which replies when the test says so, as often as it likes. */
async function ownReplies(contract: Contract) {
  const asked = Promise.withResolvers<{ replyTo: string; correlationId: string }>();
  const queueArguments = { 'x-queue-type': 'classic', 'x-max-priority': 5 };
  await channel.assertQueue(contract.queue, { durable: true, arguments: queueArguments });
  await channel.consume(
    contract.queue,
    (message) => {
      if (message !== null && message.content.toString() !== '{"n":0}') asked.resolve(message.properties);
    },
    { noAck: true },
  );
  return async (id?: string) => {
    const { replyTo, correlationId } = await asked.promise;
    channel.publish('', replyTo, Buffer.from('{"doubled":42}'), { correlationId: id ?? correlationId });
  };
}

describe('a question', () => {
  test('is answered, with the time it took, and each asker gets their own answer', async () => {
    const contract = newContract();
    await respond(contract);
    const requester = await newRequester(contract);
    const numbers = Array.from({ length: 100 }, (_, index) => index);
    const answers = await Promise.all(numbers.map((n) => requester.request(contract, { n }, LONG)));
    expect(answers.map(({ answer }) => answer)).toEqual(numbers.map((n) => ({ doubled: 2 * n })));
    for (const { processingMs } of answers) expect(processingMs).toBeGreaterThanOrEqual(0);
    expect(requester.pending).toBe(0);
  });

  test('without an answer is given up at its deadline', async () => {
    const contract = newContract();
    const { answer, release } = heldAnswers();
    await respond(contract, answer);
    const requester = await newRequester(contract);
    await expect(requester.request(contract, { n: 1 }, { timeoutMs: 100 })).rejects.toMatchObject({
      code: 'ONCEBOX_REQUEST_TIMED_OUT',
    });
    expect(requester.pending).toBe(0);
    release(1);
  });

  test('that nobody has a queue for fails at once', async () => {
    const contract = newContract();
    const requester = await newRequester(contract);
    await expect(requester.request(contract, { n: 1 }, LONG)).rejects.toMatchObject({ code: 'ONCEBOX_NO_RESPONDER' });
    expect(requester.pending).toBe(0);
  });

  test('that cannot be answered fails at once, and the answer tells nothing of the reason', async () => {
    const contract = newContract();
    await respond(contract, async () => {
      throw new Error('secret');
    });
    const requester = await newRequester(contract);
    const failure = await requester.request(contract, { n: 1 }, LONG).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: 'ONCEBOX_REQUEST_FAILED' });
    expect(String(failure)).not.toContain('secret');
  });

  test('too many are refused, and leave room again when the others are answered', async () => {
    const contract = newContract();
    const { answer, release } = heldAnswers();
    await respond(contract, answer);
    const requester = await newRequester(contract, vhost.amqpUrl, 1);
    const first = requester.request(contract, { n: 1 }, LONG);
    await expect(requester.request(contract, { n: 2 }, LONG)).rejects.toMatchObject({
      code: 'ONCEBOX_TOO_MANY_REQUESTS',
    });
    release(1);
    expect((await first).answer).toEqual({ doubled: 2 });
    const next = requester.request(contract, { n: 3 }, LONG);
    release(3);
    expect((await next).answer).toEqual({ doubled: 6 });
  });
});

describe('the responder', () => {
  test('does not begin what is over its deadline, also when it had been sent it in time', async () => {
    const contract = newContract();
    const { answer, begun, release } = heldAnswers();
    await respond(contract, answer, 1);
    const requester = await newRequester(contract);
    const first = requester.request(contract, { n: 1 }, LONG);
    await expect.poll(() => begun, PATIENCE).toContain(1);
    // A question that any clock finds too late, and that never expires in the queue.
    const headers = { deadline: Date.now() - 1 };
    const { queue: replies } = await channel.assertQueue('', { exclusive: true });
    channel.publish('', contract.queue, Buffer.from('{"n":2}'), { correlationId: 'x', replyTo: replies, headers });
    const third = requester.request(contract, { n: 3 }, LONG);
    release(1);
    release(3);
    expect([(await first).answer, (await third).answer]).toEqual([{ doubled: 2 }, { doubled: 6 }]);
    expect(begun).not.toContain(2);
    expect(await vhost.depth(contract.queue)).toBe(0);
  });

  test('takes the question with the highest priority next', async () => {
    const contract = newContract();
    const { answer, begun, release } = heldAnswers();
    await respond(contract, answer, 1);
    const requester = await newRequester(contract);
    const ask = (n: number, priority: number) => requester.request(contract, { n }, { ...LONG, priority });
    const waiting = [ask(1, 0)];
    await expect.poll(() => begun, PATIENCE).toEqual([1]);
    waiting.push(ask(2, 0), ask(3, 5));
    await expect.poll(() => vhost.depth(contract.queue), PATIENCE).toBe(2);
    for (const n of [1, 3, 2]) release(n);
    await Promise.all(waiting);
    expect(begun).toEqual([1, 3, 2]);
  });

  test('answers what it has in hand before it stops', async () => {
    const contract = newContract();
    const { answer, begun, release } = heldAnswers();
    const responder = await respond(contract, answer);
    const requester = await newRequester(contract);
    const asked = requester.request(contract, { n: 1 }, LONG);
    await expect.poll(() => begun, PATIENCE).toContain(1);
    const stopped = responder.stop();
    await expect.poll(async () => (await channel.checkQueue(contract.queue)).consumerCount, PATIENCE).toBe(0);
    release(1);
    await stopped;
    expect((await asked).answer).toEqual({ doubled: 2 });
    expect(await vhost.depth(contract.queue)).toBe(0);
  });

  test('comes back when its connection was cut', async () => {
    const contract = newContract();
    const responder = await respond(contract);
    const requester = await newRequester(contract);
    await vhost.closeConnections('answering consuming');
    await expect.poll(() => responder.consuming, PATIENCE).toBe(false);
    await expect.poll(() => responder.consuming, PATIENCE).toBe(true);
    expect((await requester.request(contract, { n: 4 }, LONG)).answer).toEqual({ doubled: 8 });
  });
});

describe('the requester', () => {
  test('counts replies that come late, a second time, or to nothing it has asked', async () => {
    const contract = newContract();
    const reply = await ownReplies(contract);
    const requester = await newRequester(contract);
    const late = requester.request(contract, { n: 21 }, { timeoutMs: 1_000 });
    await expect(late).rejects.toMatchObject({ code: 'ONCEBOX_REQUEST_TIMED_OUT' });
    await reply();
    await reply('foreign');
    await expect.poll(() => requester.counts, PATIENCE).toEqual({ late: 1, second: 0, unmatched: 1 });

    const other = newContract();
    const again = await ownReplies(other);
    const asked = requester.request(other, { n: 21 }, LONG);
    await again();
    await again();
    expect((await asked).answer).toEqual({ doubled: 42 });
    await expect.poll(() => requester.counts, PATIENCE).toEqual({ late: 1, second: 1, unmatched: 1 });
  });

  test('refuses a question that is larger than the broker may allow, and other questions are answered', async () => {
    const contract = defineRequest({
      type: 'Measure',
      owner: `c-${uuidv7()}`,
      question: z.strictObject({ text: z.string() }),
      answer: z.strictObject({ length: z.int() }),
    });
    const asked = newContract();
    const { answer, begun, release } = heldAnswers();
    await respond(asked, answer);
    const requester = await newRequester(asked);
    const waiting = requester.request(asked, { n: 1 }, LONG);
    await expect.poll(() => begun, PATIENCE).toContain(1);
    const large = { text: 'x'.repeat(16 * 1024 * 1024) };
    await expect(requester.request(contract, large, LONG)).rejects.toMatchObject({
      code: 'ONCEBOX_MESSAGE_TOO_LARGE',
    });
    release(1);
    expect((await waiting).answer).toEqual({ doubled: 2 });
    expect(requester.pending).toBe(0);
  });

  test('rejects what waits when it is closed, and everything afterwards', async () => {
    const contract = newContract();
    await ownReplies(contract);
    const requester = await newRequester(contract);
    const waiting = expect(requester.request(contract, { n: 1 }, LONG)).rejects.toMatchObject({
      code: 'ONCEBOX_BROKER_CLOSED',
    });
    await requester.close();
    await waiting;
    expect(requester.pending).toBe(0);
    await expect(requester.request(contract, { n: 1 }, LONG)).rejects.toMatchObject({ code: 'ONCEBOX_BROKER_CLOSED' });
  });

  test('rejects what waits when the broker goes away, refuses while it is, and asks again when it is back', async () => {
    const contract = newContract();
    const { answer, begun, release } = heldAnswers();
    await respond(contract, answer);
    const proxy = await startProxy(vhost.amqpUrl);
    const requester = await newRequester(contract, proxy.url);
    const waiting = expect(requester.request(contract, { n: 1 }, LONG)).rejects.toMatchObject({
      code: 'ONCEBOX_BROKER_LOST',
    });
    await expect.poll(() => begun, PATIENCE).toContain(1);
    await proxy.refuse();
    await waiting;
    await expect(requester.request(contract, { n: 2 }, LONG)).rejects.toMatchObject({ code: 'ONCEBOX_BROKER_LOST' });
    release(1);
    await proxy.pass();
    const again = () =>
      requester.request(contract, { n: 3 }, { timeoutMs: 200 }).catch(({ code }: { code?: unknown }) => code);
    await expect.poll(again, PATIENCE).toBe('ONCEBOX_REQUEST_TIMED_OUT');
    release(3);
  });
});
