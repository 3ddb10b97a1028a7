import { ChargePayment, PaymentFailed, PaymentProcessed, RefundPayment, StockReserved } from '@oncebox/contracts';
import { type Consumer, defineConsumer, on } from '@oncebox/inbox';
import { causedBy, reply } from '@oncebox/message';
import type { Pool } from '@oncebox/mysql';
import { outbox } from '@oncebox/outbox';
import type { PaymentGateway } from './gateway.ts';
import { charge, recordCharge, recordRefund, refund } from './payments.ts';

const reason = 'payment_declined';

/** Takes the payments, for both processes. The gateway is called in `prepare`: no row lock is held across a call to another company. */
export const payments = (pool: Pool, gateway: PaymentGateway): Consumer =>
  defineConsumer({
    name: 'payments',
    handlers: [
      on(StockReserved, {
        prepare: ({ payload: { orderId, amount, payment } }, signal) =>
          charge(pool, gateway, { orderId, amount, token: payment.token }, signal),
        async handle(tx, message, charged) {
          const { orderId, amount } = message.payload;
          const { status, now } = await recordCharge(tx, orderId, amount, charged);
          if (!now) return;
          const lineage = causedBy(message);
          await outbox.add(
            tx,
            status === 'processed'
              ? PaymentProcessed.message({ orderId, amount }, lineage)
              : PaymentFailed.message({ orderId, reason }, lineage),
          );
        },
      }),
      on(ChargePayment, {
        prepare: ({ payload: { orderId, amount, payment } }, signal) =>
          charge(pool, gateway, { orderId, amount, token: payment.token }, signal),
        async handle(tx, message, charged) {
          const { orderId, amount } = message.payload;
          const { status } = await recordCharge(tx, orderId, amount, charged);
          const outcome = status === 'processed' ? ({ kind: 'done' } as const) : ({ kind: 'refused', reason } as const);
          await outbox.add(tx, reply(message.payload, outcome, causedBy(message)));
        },
      }),
      on(RefundPayment, {
        prepare: ({ payload }, signal) => refund(gateway, payload.orderId, signal),
        async handle(tx, message, amount) {
          await recordRefund(tx, message.payload.orderId, amount);
          await outbox.add(tx, reply(message.payload, { kind: 'done' }, causedBy(message)));
        },
      }),
    ],
  });
