import {
  ConfirmOrder,
  PaymentFailed,
  PaymentProcessed,
  RejectOrder,
  StockReleased,
  StockReservationFailed,
  StockReserved,
} from '@oncebox/contracts';
import { loadForUpdate } from '@oncebox/event-store';
import { defineConsumer, type Incoming, NonRetryableError, on } from '@oncebox/inbox';
import { type CommandOutcome, type Contract, causedBy, type ReplyTo, reply } from '@oncebox/message';
import type { Transaction } from '@oncebox/mysql';
import { outbox } from '@oncebox/outbox';
import { type HeardEvent, type OrderStream, type Outcome, order, outcomeOf } from './order.ts';
import { record } from './record.ts';

/** Of a message about an order that was never placed here: no attempt will find it. */
export class UnknownOrderError extends NonRetryableError {}

/**
 * What others do for an order, and what a saga commands. Under the order's lock, so that of two messages about one order the second
 * sees what the first has changed, and there is no conflict to retry.
 */
export const ordersConsumer = defineConsumer({
  name: 'orders',
  handlers: [
    hear(StockReserved, (data) => ({ type: 'StockReserved', data })),
    hear(StockReservationFailed, (data) => ({ type: 'StockReservationFailed', data })),
    hear(StockReleased, (data) => ({ type: 'StockReleased', data })),
    hear(PaymentProcessed, (data) => ({ type: 'PaymentProcessed', data })),
    hear(PaymentFailed, (data) => ({ type: 'PaymentFailed', data })),
    on(ConfirmOrder, { handle: (tx, message) => obey(tx, message, { type: 'OrderConfirmed', data: {} }) }),
    on(RejectOrder, {
      handle: (tx, message) => obey(tx, message, { type: 'OrderRejected', data: { reason: message.payload.reason } }),
    }),
  ],
});

function hear<Payload extends { readonly orderId: string }>(
  contract: Contract<string, Payload>,
  heard: (payload: Payload) => HeardEvent,
) {
  return on(contract, {
    async handle(tx, message) {
      const stream = await find(tx, message.payload.orderId);
      const event = heard(message.payload);
      const outcome = outcomeOf(stream.state, event);
      await record(tx, stream, outcome === undefined ? [event] : [event, outcome], causedBy(message));
    },
  });
}

/** Ends an order, once, and answers each time: a command may come again after its answer was lost. */
async function obey(
  tx: Transaction,
  message: Incoming<{ readonly replyTo: ReplyTo; readonly orderId: string }>,
  outcome: Outcome,
): Promise<void> {
  const { payload } = message;
  const stream = await find(tx, payload.orderId);
  if (stream.state?.status === 'placed') await record(tx, stream, [outcome], causedBy(message));
  await outbox.add(tx, reply(payload, answerTo(stream, outcome), causedBy(message)));
}

/** What an order has come to stays; whoever wants the other is told so. */
function answerTo({ state }: OrderStream, { type }: Outcome): CommandOutcome {
  const wanted = type === 'OrderConfirmed' ? 'confirmed' : 'rejected';
  if (state?.status === 'placed' || state?.status === wanted) return { kind: 'done' };
  return { kind: 'refused', reason: `order_is_${state?.status}` };
}

async function find(tx: Transaction, id: string): Promise<OrderStream> {
  const stream = await loadForUpdate(tx, order, id);
  if (stream.state === null) throw new UnknownOrderError('There is no such order');
  return stream;
}
