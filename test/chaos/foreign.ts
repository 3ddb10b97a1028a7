import { randomUUID } from 'node:crypto';
import { type ConfirmChannel, connect, type Options } from 'amqplib';
import { pause } from './pause.ts';

/**
 * What others publish, straight to the queues of consumers and to the exchange of events. None of
 * their ids is a UUIDv7, as all of ours are.
 */

export const CONSUMERS = [
  'welcome-email',
  'customer-directory',
  'inventory',
  'payments',
  'order-fulfilment',
  'order-emails',
  'sales',
  'orders',
] as const;

const TIMES = ['+275760-09-13T00:00:00.000Z', '-000001-01-01T00:00:00Z', '9999-12-31T23:59:59Z', '0000-00-00', 'soon'];
/** Headers that we, or the broker, give a meaning, with what nobody of ours writes. */
const FORGED: Readonly<Record<string, readonly unknown[]>> = {
  'x-delivery-count': [1, 19, 21, 2 ** 40, -1, 'many'],
  'x-acquired-count': [7, 'x'],
  'x-oncebox-attempts': [-1, 2, 1_000_000_000, 0.5, '2'],
  'x-oncebox-routing-key': ['k'.repeat(300), '', 'customer.created'],
  'x-oncebox-first-failure': TIMES,
  'x-oncebox-last-failure': TIMES,
  'x-oncebox-reason': ['r'.repeat(3_000), 1],
  'x-oncebox-error-class': ['E'.repeat(500)],
  'x-oncebox-consumer': ['nobody'],
  'oncebox-replay': ['true', '', 1],
  schemaversion: [1, 2, 0, -1, 65_536, 2 ** 32, 'one', 1.5],
  'cloudEvents:time': TIMES,
  'cloudEvents:subject': ['s'.repeat(1_000), ''],
  'cloudEvents:id': ['another'],
  partition: ['99', -1],
  traceparent: ['00-zz', 1],
};

export interface Foreign {
  readonly exchange: string;
  readonly routingKey: string;
  readonly body: Buffer;
  readonly options: Options.Publish;
}

/** Sends them in bursts. A broker that is away gets none. @returns how many it has taken. */
export async function publishForeign(amqpUrl: string, random: () => number, signal: AbortSignal): Promise<number> {
  let sent = 0;
  while (await pause(200 + random() * 1_500, signal)) {
    const burst = Array.from({ length: 1 + Math.floor(random() * 8) }, () => foreignMessage(random));
    sent += await publishAll(amqpUrl, burst).catch(() => 0);
  }
  return sent;
}

async function publishAll(amqpUrl: string, burst: readonly Foreign[]): Promise<number> {
  const connection = await connect(amqpUrl, { clientProperties: { connection_name: 'somebody else' } });
  connection.on('error', () => undefined); // the broker goes down; the confirms reject
  const channel = await connection.createConfirmChannel();
  channel.on('error', () => undefined);
  for (const message of burst) publish(channel, message);
  await channel.waitForConfirms();
  await connection.close();
  return burst.length;
}

function publish(channel: ConfirmChannel, { exchange, routingKey, body, options }: Foreign): void {
  try {
    channel.publish(exchange, routingKey, body, options);
  } catch {
    // The client refuses to encode some tables, so such a message cannot come from this client.
  }
}

export function foreignMessage(random: () => number): Foreign {
  const pick = <T>(given: readonly T[]): T | undefined => given[Math.floor(random() * given.length)];
  const consumer = pick(CONSUMERS) ?? '';
  const [exchange, routingKey] = pick([
    ['', consumer],
    ['', consumer],
    ['', random() < 0.2 ? `${consumer}.dead` : 'welcome-email'],
    ['oncebox.events', pick(['customer.created', 'customer.updated', 'order.placed', 'k'.repeat(255)]) ?? ''],
  ]) ?? ['', ''];
  const isWellFormed = random() < 0.4;
  const given = {
    persistent: random() < 0.8,
    messageId: pick([undefined, `foreign-${random()}`, 'i'.repeat(255), 'ünï', '']),
    type: isWellFormed
      ? 'CustomerCreated'
      : pick([undefined, 'CustomerUpdated', 'OrderPlaced', 'T'.repeat(255), 'Nothing']),
    replyTo: pick([undefined, undefined, 'welcome-email', 'nowhere', 'r'.repeat(255)]),
    timestamp: pick([undefined, 0, 2 ** 40]),
    contentType: pick([undefined, 'text/plain', 'application/json']),
    // Not by way of the exchange: who records all that goes there must find it.
    expiration: exchange === '' ? pick([undefined, undefined, undefined, '0', '50']) : undefined,
    headers: headersOf(random, isWellFormed),
  };
  const options = Object.assign<Options.Publish, object>({}, given); // amqplib leaves out what is undefined
  return { exchange, routingKey, body: isWellFormed ? wellFormed() : oddBody(random), options };
}

/** Of a customer that nobody of ours has made: its id is a UUIDv4. */
const wellFormed = (): Buffer => {
  const customerId = randomUUID();
  return Buffer.from(JSON.stringify({ customerId, email: `${customerId}@example.org`, name: 'Foreign', version: 1 }));
};

function oddBody(random: () => number): Buffer {
  const bodies = [
    () => Buffer.alloc(0),
    () => Buffer.from([0x7b, 0xff, 0xfe, 0xc3, 0x28, 0x7d]),
    () => Buffer.from('{"customerId":'),
    () => Buffer.from(`${'['.repeat(5_000)}${']'.repeat(5_000)}`),
    () => Buffer.alloc(100_000, 'x'),
    () => Buffer.from('{"__proto__":{"x":1},"version":1e400}'),
  ];
  return bodies[Math.floor(random() * bodies.length)]?.() ?? Buffer.alloc(0);
}

function headersOf(random: () => number, isWellFormed: boolean): Record<string, unknown> {
  const headers: Record<string, unknown> = isWellFormed ? { schemaversion: 1 } : {};
  for (const [name, values] of Object.entries(FORGED)) {
    const [chance, value] = [random(), values[Math.floor(random() * values.length)]];
    if (chance < 0.15) headers[name] = value;
  }
  const more = Math.floor(random() * 6);
  for (let n = 0; n < more; n += 1) headers[`odd-${n}`] = oddValue(random, 2);
  // Near the frame's size of 128 KiB, and over the 64 KiB of the client's own notes.
  if (random() < 0.05) headers['large'] = 'l'.repeat(40_000 + Math.floor(random() * 60_000));
  return headers;
}

function oddValue(random: () => number, depth: number): unknown {
  const values = [
    () => 'text',
    () => '\u0000\u{1f600}',
    () => 2 ** 31,
    () => ({ '!': 'int64', value: 2 ** 53 }),
    () => ({ '!': 'timestamp', value: 2 ** 40 }),
    () => ({ '!': 'double', value: 1.5e300 }),
    () => true,
    () => null,
    () => Buffer.from([0xff, 0x00]),
    () => (depth > 0 ? [oddValue(random, depth - 1), oddValue(random, depth - 1)] : []),
    () => (depth > 0 ? { nested: oddValue(random, depth - 1) } : {}),
  ];
  return values[Math.floor(random() * values.length)]?.();
}
