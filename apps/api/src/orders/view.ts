import { fold, type Recorded } from '@oncebox/event-store';
import { type OrderEvent, order } from './order.ts';
import type { OrderView } from './schemas.ts';

/** An order as its events tell it: it needs no projection, and is never behind. */
export function viewOf(id: string, events: readonly Recorded<OrderEvent>[]): OrderView | undefined {
  const { state, version } = fold(order, id, events);
  if (state === null) return undefined;
  const { reason, ...rest } = state;
  return { id, ...rest, ...(reason === null ? {} : { reason }), version, timeline: events.map(entryOf) };
}

function entryOf(event: Recorded<OrderEvent>): OrderView['timeline'][number] {
  const { type, occurredAt, lineage } = event;
  const { correlationId, causationId } = lineage;
  return {
    type,
    at: occurredAt.toISOString(),
    ...detailsOf(event),
    ...(correlationId === undefined ? {} : { correlationId }),
    ...(causationId === undefined ? {} : { causationId }),
  };
}

function detailsOf(event: OrderEvent): Pick<OrderView['timeline'][number], 'reason' | 'amount'> {
  switch (event.type) {
    case 'OrderRejected':
    case 'StockReservationFailed':
    case 'PaymentFailed':
      return { reason: event.data.reason };
    case 'StockReserved':
    case 'PaymentProcessed':
      return { amount: event.data.amount };
    default:
      return {};
  }
}
