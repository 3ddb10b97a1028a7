import { EVENTS_EXCHANGE, type Inbox, type Received, type Verdict } from '@oncebox/message';
import {
  type Broker,
  type Consumer,
  type ConsumerOptions,
  connectBroker,
  type Logger,
  startConsumer,
} from '@oncebox/rabbitmq';
import type { Channel, GetMessage, Options } from 'amqplib';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, afterEach, beforeAll, expect, inject } from 'vitest';
import { createVhost, type Vhost } from './vhost.ts';

/** What the tests of consumers share; each file that imports it has a vhost of its own. */

export let vhost: Vhost;
export let channel: Channel;
beforeAll(async () => {
  vhost = await createVhost(inject('servers'));
  channel = await vhost.channel();
});
afterAll(() => vhost.drop());

/** Stopped after each test, in this order. */
export const started: { readonly stop: () => Promise<void> }[] = [];
afterEach(async () => {
  for (const each of started.splice(0)) await each.stop();
});

export const quiet: Logger = { info: () => undefined, warn: () => undefined, error: () => undefined };
export const PATIENCE = { timeout: 30_000, interval: 20 };
export const handled: Verdict = { kind: 'handled' };

export class OrderError extends Error {
  override readonly name = 'OrderError';
  readonly code = 'E_ORDER';
}

/** Consumers of one process: they share its connections. */
export function connect(name: string): Broker {
  return connectBroker({ urls: [vhost.amqpUrl], name, logger: quiet });
}

interface Keys {
  /** On the exchange of events; by default its name. */
  readonly routingKeys?: readonly string[];
}

/** An inbox that has no database behind it: the tests of the broker's side say what comes of a message. */
export const inboxOf = (
  name: string,
  process: Inbox['process'],
  { routingKeys = [name], ...given }: Partial<Inbox> & Keys = {},
): Inbox => ({
  name,
  bindings: routingKeys.map((routingKey) => ({ exchange: EVENTS_EXCHANGE, routingKey })),
  retryDelaysMs: [1_000],
  process,
  probe: async () => undefined,
  register: async () => undefined,
  ...given,
});

export type Settings = Partial<Inbox & Omit<ConsumerOptions, 'inbox'>> & Keys;

/** A consumer whose queue is bound for its own name, on connections of its own. */
export function start(
  name: string,
  handle: (message: Received) => Promise<Verdict>,
  settings: Settings = {},
): Consumer {
  const broker = settings.broker ?? connect(name);
  const consumer = startConsumer({ broker, logger: quiet, ...settings, inbox: inboxOf(name, handle, settings) });
  started.push(consumer, { stop: () => broker.close() });
  return consumer;
}

/** The same, once it consumes. */
export async function consume(...given: Parameters<typeof start>): Promise<Consumer> {
  const consumer = start(...given);
  await expect.poll(() => consumer.consuming, PATIENCE).toBe(true);
  return consumer;
}

export const newName = () => `c-${uuidv7()}`;

export function send(key: string, options: Options.Publish = {}, body = '{}'): string {
  const messageId = uuidv7();
  const given = { messageId, type: 'T', persistent: true, contentType: 'application/json', ...options };
  const headers = { schemaversion: 1, ...options.headers };
  channel.publish('oncebox.events', key, Buffer.from(body), { ...given, headers });
  return messageId;
}

export async function read(queue: string): Promise<GetMessage> {
  await expect.poll(() => vhost.depth(queue), PATIENCE).toBeGreaterThan(0);
  const got = await channel.get(queue, { noAck: true });
  if (got === false) throw new Error(`${queue} is empty`);
  return got;
}

/** A message is settled when its queue has none left, also after the consumer's channel is closed. */
export async function expectSettled(name: string, consumer: Consumer): Promise<void> {
  await consumer.stop();
  expect(await vhost.depth(name)).toBe(0);
}
