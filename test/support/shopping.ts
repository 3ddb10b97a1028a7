import { type Message, toOutboxRow, toWire } from '@oncebox/message';
import type { Channel } from 'amqplib';
import { z } from 'zod';
import type { Api } from './trio.ts';

const orderSeen = z.object({
  id: z.string(),
  status: z.enum(['placed', 'confirmed', 'rejected']),
  reason: z.string().optional(),
  totalAmount: z.int(),
  version: z.int(),
  timeline: z.array(
    z.object({ type: z.string(), correlationId: z.string().optional(), causationId: z.string().optional() }),
  ),
});
export type OrderSeen = z.output<typeof orderSeen>;

export interface Wish {
  readonly customerId: string;
  readonly items?: readonly { readonly sku: string; readonly quantity: number }[];
  readonly token?: string;
  readonly process?: 'choreography' | 'orchestration';
}

export const orderBody = ({
  customerId,
  items = [{ sku: 'SKU-1', quantity: 2 }],
  token = 'tok_ok',
  process,
}: Wish) => ({
  customerId,
  items,
  shippingAddress: '1 Main Street',
  payment: { token },
  ...(process === undefined ? {} : { process }),
});

/** @returns its id @throws when it is not accepted. */
export async function placeOrder(
  api: Pick<Api, 'url'>,
  wish: Wish,
  headers: Readonly<Record<string, string>> = {},
): Promise<string> {
  const response = await fetch(`${api.url}/orders`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(orderBody(wish)),
  });
  if (response.status !== 202) throw new Error(`POST /orders: ${response.status} ${await response.text()}`);
  return orderSeen.pick({ id: true }).parse(await response.json()).id;
}

export async function readOrder(api: Pick<Api, 'url'>, id: string): Promise<OrderSeen> {
  const response = await fetch(`${api.url}/orders/${id}`);
  if (response.status !== 200) throw new Error(`GET /orders/${id}: ${response.status}`);
  return orderSeen.parse(await response.json());
}

/** Publishes a message as the relay of another service would. */
export function tell(channel: Channel, message: Message): void {
  const row = toOutboxRow(message);
  const { body, properties } = toWire({
    id: row.id,
    type: row.type,
    version: row.version,
    aggregateId: row.aggregateid,
    payload: row.payload,
    lineage: message.lineage,
    exchange: row.exchange,
    routingKey: row.routing_key,
    mandatory: true,
    source: 'fulfilment',
    occurredAt: new Date(),
  });
  channel.publish(row.exchange, row.routing_key, body, properties);
}
