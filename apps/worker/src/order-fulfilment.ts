import {
  ChargePayment,
  ConfirmOrder,
  OrderPlaced,
  payment,
  quantity,
  RefundPayment,
  RejectOrder,
  ReleaseStock,
  ReserveStock,
  rejectionReason,
  sku,
} from '@oncebox/contracts';
import { type Consumer, defineConsumer, on } from '@oncebox/inbox';
import { causedBy } from '@oncebox/message';
import { answersTo, defineSaga, type Saga, startSaga } from '@oncebox/saga';
import { z } from 'zod';

const order = z.strictObject({
  orderId: z.uuid(),
  items: z.array(z.strictObject({ sku, quantity })).min(1),
  totalAmount: z.int().min(0),
  payment,
});
type Order = z.infer<typeof order>;

/**
 * The orchestration: reserve, pay, confirm; when one of them is refused, whatever was done before is undone in reverse, and at
 * last the order is rejected for that reason.
 *
 * @param timeoutMs milliseconds until a command that was not answered is sent again.
 */
export const orderFulfilment = (timeoutMs: number): Saga<Order> =>
  defineSaga({
    name: 'order-fulfilment',
    data: order,
    steps: [
      {
        // It was placed before the saga began, so there is only something to undo.
        name: 'order',
        timeoutMs,
        compensation: ({ orderId }, replyTo, reason) =>
          RejectOrder.message({ replyTo, orderId, reason: rejectionReason.catch('timed_out').parse(reason) }),
      },
      {
        name: 'stock',
        timeoutMs,
        action: ({ orderId, items }, replyTo) => ReserveStock.message({ replyTo, orderId, items }),
        compensation: ({ orderId }, replyTo) => ReleaseStock.message({ replyTo, orderId }),
      },
      {
        name: 'payment',
        timeoutMs,
        when: ({ totalAmount }) => totalAmount > 0,
        action: ({ orderId, totalAmount, payment }, replyTo) =>
          ChargePayment.message({ replyTo, orderId, amount: totalAmount, payment }),
        compensation: ({ orderId }, replyTo) => RefundPayment.message({ replyTo, orderId }),
      },
      {
        // Without a compensation: an order that was told to its customer as confirmed stays so. Asked for as often as what
        // undoes a step: for hours, before somebody has to look.
        name: 'confirmation',
        timeoutMs,
        attempts: 10,
        action: ({ orderId }, replyTo) => ConfirmOrder.message({ replyTo, orderId }),
      },
    ],
  });

/** Starts the saga of each order that is to be orchestrated, and takes the answers to its commands. */
export const orderFulfilmentConsumer = (saga: Saga<Order>): Consumer =>
  defineConsumer({
    name: saga.name,
    handlers: [
      on(OrderPlaced, {
        async handle(tx, message) {
          const { orderId, items, totalAmount, payment, process } = message.payload;
          if (process !== 'orchestration') return;
          await startSaga(tx, saga, {
            id: orderId,
            data: {
              orderId,
              items: items.map(({ sku, quantity }) => ({ sku, quantity })),
              totalAmount,
              payment,
            },
            lineage: causedBy(message),
          });
        },
      }),
      answersTo(saga),
    ],
  });
