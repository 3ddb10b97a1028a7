import { join } from 'node:path';
import { v7 as uuidv7 } from 'uuid';
import { expect, inject, it } from 'vitest';
import {
  deadLetters,
  emails,
  newCustomer,
  PATIENCE,
  processed,
  send,
  startWorker,
  system,
  useFulfilment,
} from '../support/fulfilment.ts';
import { CRASHED } from '../support/poison.ts';

useFulfilment();

const QUEUE = 'welcome-email';

/** As an operator may, since a broker takes the lower of a policy and a queue's own argument: twenty crashes take their time. */
async function limitDeliveries(limit: number): Promise<void> {
  const management = new URL(inject('servers').managementUrl);
  const vhost = new URL(system.vhost.amqpUrl).pathname.slice(1);
  const response = await fetch(`http://${management.host}/api/policies/${vhost}/limit`, {
    method: 'PUT',
    headers: {
      authorization: `Basic ${Buffer.from(`${management.username}:${management.password}`).toString('base64')}`,
      'content-type': 'application/json',
    },
    body: JSON.stringify({ pattern: `^${QUEUE}$`, definition: { 'delivery-limit': limit }, 'apply-to': 'queues' }),
  });
  expect(response.ok).toBe(true);
}

it('41: of 50 messages the one that ends its process each time is a dead letter, and the 49 around it are handled', async () => {
  await limitDeliveries(4);
  const poison = uuidv7();
  const others = Array.from({ length: 50 }, (_, index) =>
    send(newCustomer(), { queue: QUEUE, messageId: index === 25 ? poison : uuidv7() }),
  ).filter((id) => id !== poison);
  const environment = {
    NODE_OPTIONS: `--import=${join(import.meta.dirname, '../support/poison.ts')}`,
    ONCEBOX_POISON: poison,
    WORKER_PREFETCH: '40',
  };
  // As a supervisor does.
  let worker = startWorker(environment);
  let crashes = 0;
  const supervising = (async () => {
    while ((await worker.exited) === CRASHED) {
      crashes += 1;
      worker = startWorker(environment);
    }
  })();

  await expect
    .poll(() => deadLetters(QUEUE), { ...PATIENCE, timeout: 60_000 })
    .toEqual([
      {
        id: poison,
        type: 'CustomerCreated',
        reason: expect.stringContaining('delivery'),
        attempts: expect.any(Number),
      },
    ]);
  await expect.poll(() => processed(QUEUE, others), PATIENCE).toEqual(others.toSorted());
  expect(await emails([...others, poison])).toEqual(others.toSorted());
  expect(await system.vhost.depth(QUEUE)).toBe(0);
  expect(crashes).toBeGreaterThanOrEqual(4);
  worker.kill('SIGTERM');
  await supervising;
  expect(await worker.exited).toBe(0);
});
