import { type CommandOutcome, type ReplyTo, repliesTo } from '@oncebox/message';
import type { Channel } from 'amqplib';
import { v7 as uuidv7 } from 'uuid';
import { z } from 'zod';

/** The api's part in the fulfilment of orders, played by a test: it places orders, hears how they end, and answers commands. */
export interface Shop {
  /** @returns the order's id. */
  place(order: Partial<Order>): string;
  /** `confirmed`, or the reason of the rejection; undefined while it is under way. */
  outcomeOf(orderId: string): string | undefined;
  /** Commands that it was sent about an order, in order. */
  commandsOf(orderId: string): readonly Command[];
  /** Publishes a command of the saga's as the relay would. @returns the message's id. */
  command(type: string, owner: string, payload: object): string;
  answer(replyTo: ReplyTo, outcome: CommandOutcome): void;
  /** From now on commands stay without an answer, or get one each time. */
  silent: boolean;
}

export interface Order {
  readonly items: readonly { readonly sku: string; readonly quantity: number; readonly unitPrice: number }[];
  readonly token: string;
  readonly process: 'choreography' | 'orchestration';
}

const command = z.looseObject({
  orderId: z.string(),
  reason: z.string().optional(),
  replyTo: z.object({ saga: z.string(), id: z.string(), step: z.string(), direction: z.enum(['forward', 'back']) }),
});
type Command = z.infer<typeof command> & { readonly type: string };
const event = z.looseObject({ orderId: z.string(), reason: z.string().optional() });

const ENDS: ReadonlySet<string> = new Set(['PaymentProcessed', 'PaymentFailed', 'StockReservationFailed']);

/** @param channel on a vhost where a worker has declared the exchanges. */
export async function playShop(channel: Channel): Promise<Shop> {
  const outcomes = new Map<string, string>();
  const orchestrated = new Set<string>();
  const commands: Command[] = [];
  const publish = (exchange: string, key: string, type: string, payload: object): string => {
    const messageId = uuidv7();
    const options = { messageId, type, persistent: true, correlationId: 'corr-1', headers: { schemaversion: 1 } };
    channel.publish(exchange, key, Buffer.from(JSON.stringify(payload)), options);
    return messageId;
  };
  const shop: Shop = {
    silent: false,
    place({ items = [{ sku: 'SKU-1', quantity: 1, unitPrice: 500 }], token = 'tok_ok', process = 'choreography' }) {
      const orderId = uuidv7();
      const totalAmount = items.reduce((sum, { quantity, unitPrice }) => sum + quantity * unitPrice, 0);
      if (process === 'orchestration') orchestrated.add(orderId);
      publish('oncebox.events', 'order.placed', 'OrderPlaced', {
        orderId,
        customerId: uuidv7(),
        items,
        totalAmount,
        shippingAddress: 'Somewhere 1',
        payment: { token },
        process,
      });
      return orderId;
    },
    outcomeOf: (orderId) => outcomes.get(orderId),
    commandsOf: (orderId) => commands.filter((each) => each.orderId === orderId),
    command: (type, owner, payload) => publish('oncebox.commands', `${owner}.${type}`, type, payload),
    answer(replyTo, outcome) {
      const { type, routingKey } = repliesTo(replyTo.saga);
      publish('oncebox.commands', routingKey, type, { replyTo, outcome });
    },
  };

  const { queue: own } = await channel.assertQueue('orders', {
    durable: true,
    arguments: { 'x-queue-type': 'quorum' },
  });
  await channel.bindQueue(own, 'oncebox.commands', 'orders.*');
  await channel.consume(own, (message) => {
    if (message === null) return;
    const received = { ...command.parse(JSON.parse(message.content.toString())), type: message.properties.type };
    commands.push(received);
    if (!shop.silent) {
      outcomes.set(received.orderId, received.reason ?? 'confirmed');
      shop.answer(received.replyTo, { kind: 'done' });
    }
    channel.ack(message);
  });
  const { queue: ears } = await channel.assertQueue('ears', { durable: true, arguments: { 'x-queue-type': 'quorum' } });
  await channel.bindQueue(ears, 'oncebox.events', '#');
  await channel.consume(ears, (message) => {
    if (message === null) return;
    const { orderId, reason } = event.parse(JSON.parse(message.content.toString()));
    // An orchestrated order ends by command alone.
    const ends = ENDS.has(message.properties.type) && !orchestrated.has(orderId);
    if (ends) outcomes.set(orderId, reason ?? 'confirmed');
    channel.ack(message);
  });
  return shop;
}
