export { CustomerCreated, CustomerUpdated, email, name } from './customer.ts';
