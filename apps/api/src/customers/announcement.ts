import { CustomerCreated, CustomerCreatedV1, CustomerUpdated } from '@oncebox/contracts';
import type { Lineage, Message } from '@oncebox/message';
import type { Request } from 'express';
import type { Customer } from './schemas.ts';

/** Which version of CustomerCreated is written: the newest one once every worker reads it, the one before until then. */
export type CreatedVersion = 1 | 2;

const payloadOf = ({ id, email, name, version }: Customer) => ({ customerId: id, email, name, version });

export const created = (customer: Customer, language: string, version: CreatedVersion, lineage: Lineage): Message =>
  version === 1
    ? CustomerCreatedV1.message(payloadOf(customer), lineage)
    : CustomerCreated.message({ ...payloadOf(customer), language }, lineage);

export const updated = (customer: Customer, lineage: Lineage): Message =>
  CustomerUpdated.message(payloadOf(customer), lineage);

/** The language that the client likes best, without its region; English where it does not say. */
export function languageOf(request: Request): string {
  const [best = ''] = request.acceptsLanguages();
  return /^[a-z]{2}(?=-|$)/.exec(best.toLowerCase())?.[0] ?? 'en';
}
