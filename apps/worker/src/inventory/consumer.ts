import {
  OrderPlaced,
  PaymentFailed,
  ReleaseStock,
  ReserveStock,
  StockReleased,
  StockReservationFailed,
  StockReserved,
} from '@oncebox/contracts';
import { defineConsumer, on } from '@oncebox/inbox';
import { causedBy, reply } from '@oncebox/message';
import { outbox } from '@oncebox/outbox';
import { release, reserve } from './stock.ts';

const reason = 'out_of_stock';

/**
 * Keeps the stock, for both processes: in the choreography it reacts to what happened to an order and says what it did, without
 * knowing who hears it; in the orchestration it does what it is told and answers.
 *
 * An order a transaction: a batch would hold the stock of many orders, taken in the order in which they came, until it commits.
 */
export const inventory = defineConsumer({
  name: 'inventory',
  batch: 1,
  handlers: [
    on(OrderPlaced, {
      async handle(tx, message) {
        const { orderId, customerId, items, totalAmount, payment, process } = message.payload;
        if (process !== 'choreography') return;
        const { state, now } = await reserve(tx, orderId, items);
        if (!now) return;
        const lineage = causedBy(message);
        await outbox.add(
          tx,
          state === 'reserved'
            ? StockReserved.message({ orderId, customerId, amount: totalAmount, payment }, lineage)
            : StockReservationFailed.message({ orderId, reason }, lineage),
        );
      },
    }),
    on(PaymentFailed, {
      async handle(tx, message) {
        const { orderId } = message.payload;
        const { now } = await release(tx, orderId);
        if (now) await outbox.add(tx, StockReleased.message({ orderId }, causedBy(message)));
      },
    }),
    on(ReserveStock, {
      async handle(tx, message) {
        const { state } = await reserve(tx, message.payload.orderId, message.payload.items);
        const outcome = state === 'reserved' ? ({ kind: 'done' } as const) : ({ kind: 'refused', reason } as const);
        await outbox.add(tx, reply(message.payload, outcome, causedBy(message)));
      },
    }),
    on(ReleaseStock, {
      async handle(tx, message) {
        await release(tx, message.payload.orderId);
        await outbox.add(tx, reply(message.payload, { kind: 'done' }, causedBy(message)));
      },
    }),
  ],
});
