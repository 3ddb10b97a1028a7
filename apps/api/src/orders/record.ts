import { OrderConfirmed, OrderPlaced, OrderRejected } from '@oncebox/contracts';
import { append } from '@oncebox/event-store';
import type { Lineage, Message } from '@oncebox/message';
import type { Transaction } from '@oncebox/mysql';
import { outbox } from '@oncebox/outbox';
import { type OrderEvent, type OrderStream, order } from './order.ts';
import { orders } from './projection.ts';

/**
 * The one way to change an order: its events, its row of the projection and what others are told, in one transaction.
 *
 * @throws VersionConflictError when somebody else has changed it since it was loaded.
 */
export async function record(
  tx: Transaction,
  stream: OrderStream,
  events: readonly OrderEvent[],
  lineage: Lineage,
): Promise<OrderStream> {
  const recorded = await append(tx, order, stream, events, lineage);
  await orders.write(tx, recorded);
  for (const event of events) {
    const message = announcement(recorded, event, lineage);
    if (message !== undefined) await outbox.add(tx, message);
  }
  return recorded;
}

/** What is ours to announce. What others said, they have announced themselves. */
function announcement({ id, state }: OrderStream, event: OrderEvent, lineage: Lineage): Message | undefined {
  if (state === null) return undefined;
  const about = { orderId: id, customerId: state.customerId };
  switch (event.type) {
    case 'OrderPlaced':
      return OrderPlaced.message(event.data, lineage);
    case 'OrderConfirmed':
      return OrderConfirmed.message({ ...about, timestamp: state.updatedAt }, lineage);
    case 'OrderRejected':
      return OrderRejected.message({ ...about, reason: event.data.reason }, lineage);
    default:
      return undefined;
  }
}
