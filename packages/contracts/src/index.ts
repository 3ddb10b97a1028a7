export { CustomerCreated, CustomerUpdated } from './customer.ts';
