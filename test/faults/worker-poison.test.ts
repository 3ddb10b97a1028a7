import { join } from 'node:path';
import { v7 as uuidv7 } from 'uuid';
import { beforeAll, expect, inject, it } from 'vitest';
import {
  channel,
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
import { STEPS_TABLE, Stepped, stepOnTheWire } from '../support/ordered.ts';
import { CRASHED } from '../support/poison.ts';
import { type Program, start } from '../support/processes.ts';

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
  const supervised = supervise(() => startWorker(environment));

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
  expect(await supervised.stop()).toBe(0);
  expect(supervised.crashes).toBeGreaterThanOrEqual(4);
});

interface Supervised {
  readonly crashes: number;
  /** @returns the exit code of the last process. */
  stop(): Promise<number | NodeJS.Signals>;
}

/** Starts a process, and another one whenever it has crashed, as a supervisor does. */
function supervise(startOne: () => Program): Supervised {
  let program = startOne();
  let crashes = 0;
  const supervising = (async () => {
    for (;;) {
      const end = await program.exited;
      if (end !== CRASHED) return end;
      crashes += 1;
      program = startOne();
    }
  })();
  return {
    get crashes() {
      return crashes;
    },
    stop() {
      program.kill('SIGTERM');
      return supervising;
    },
  };
}

beforeAll(() => system.fulfilment(STEPS_TABLE));

// Each poison crashes more often than the healthy messages would survive if the crashes counted for
// them too.
it.each([
  { name: 'H1: of two unordered consumers', ordered: 'neither', deliveryLimit: 4 },
  { name: 'H2: of an unordered and a healthy ordered consumer', ordered: 'healthy', deliveryLimit: 10 },
  { name: 'H3: of an ordered and a healthy unordered consumer', ordered: 'poisoned', deliveryLimit: 4 },
  { name: 'H4: of two ordered consumers', ordered: 'poisoned healthy', deliveryLimit: 4 },
])('$name in one process only the message that ends the process is dead', async ({ name, ordered, deliveryLimit }) => {
  const isOrdered = (role: string): boolean => ordered.includes(role);
  const consumerOf = (role: string): string => `${role}-${name.slice(0, 2).toLowerCase()}`;
  const startBoth = () =>
    start('test/support/two-consumers.ts', {
      // Its own table is not among those that the worker's user is granted.
      WORKER_DATABASE_URL: system.schemas.fulfilment.adminUrl,
      AMQP_URL: system.vhost.amqpUrl,
      POISONED: consumerOf('poisoned'),
      HEALTHY: consumerOf('healthy'),
      ORDERED: ordered,
      DELIVERY_LIMIT: String(deliveryLimit),
    });
  const declaring = startBoth();
  await declaring.said(/^both consume$/);
  declaring.kill('SIGTERM');
  await declaring.exited;

  /** As the relay would send it, but to one consumer. */
  const sendTo = (role: string, walk: string, n: number): string => {
    const { body, properties } = stepOnTheWire(walk, n);
    const [exchange, key] = isOrdered(role) ? [consumerOf(role), Stepped.routingKey] : ['', consumerOf(role)];
    channel.publish(exchange, key, body, properties);
    return properties.messageId;
  };
  const quick = (from: number) =>
    PAIR.flatMap((role) => Array.from({ length: 5 }, (_, n) => sendTo(role, `quick ${role}`, from + n)));
  const before = quick(0);
  const poison = sendTo('poisoned', 'poison', 0);
  const slow = [0, 1].map((n) => sendTo('healthy', 'slow', n));
  const expected = [...before, ...slow, ...quick(5)];

  const supervised = supervise(startBoth);
  await expect
    .poll(() => deadLetters(consumerOf('poisoned')), { ...PATIENCE, timeout: 60_000 })
    .toMatchObject([{ id: poison }]);
  await expect.poll(() => stepsOf(expected), PATIENCE).toHaveLength(expected.length);
  expect(await supervised.stop()).toBe(0);
  expect(supervised.crashes).toBeGreaterThan(4);

  const steps = await stepsOf(expected);
  expect(steps.map(({ message_id }) => message_id).toSorted()).toEqual(expected.toSorted());
  for (const role of PAIR.filter(isOrdered)) {
    const inOrder = Array.from({ length: 10 }, (_, n) => n);
    expect(steps.filter(({ walk }) => walk === `quick ${role}`).map(({ n }) => n)).toEqual(inOrder);
  }
  expect(await deadLetters(consumerOf('healthy'))).toEqual([]);
  const held = 'SELECT message_id FROM held_messages WHERE consumer = ?';
  expect(await system.fulfilment(held, [consumerOf('healthy')])).toEqual([]);
});

const PAIR = ['poisoned', 'healthy'];

/** The effects of these messages, in their order. */
const stepsOf = (ids: readonly string[]) =>
  system.fulfilment('SELECT message_id, walk, n FROM steps WHERE message_id IN (?) ORDER BY seq', [ids]);
