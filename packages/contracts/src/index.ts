export { availability, CheckAvailability } from './availability.ts';
export {
  ChargePayment,
  ConfirmOrder,
  RefundPayment,
  RejectOrder,
  ReleaseStock,
  ReserveStock,
} from './commands.ts';
export { CustomerCreated, CustomerCreatedV1, CustomerUpdated, email, name } from './customer.ts';
export {
  OrderConfirmed,
  OrderPlaced,
  OrderRejected,
  orderProcess,
  PaymentFailed,
  PaymentProcessed,
  payment,
  quantity,
  rejectionReason,
  StockReleased,
  StockReservationFailed,
  StockReserved,
  shippingAddress,
  sku,
} from './order.ts';
