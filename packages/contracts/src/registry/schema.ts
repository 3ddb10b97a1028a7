import { type Contract, versionsOf } from '@oncebox/message';
import { z } from 'zod';

/** A JSON Schema, or a part of one. */
export type Schema = Readonly<Record<string, unknown>>;

const isContract = (value: object): value is Contract => 'routingKey' in value && 'schema' in value;

/**
 * Every version of every message among a module's exports, by type and version.
 *
 * @throws Error when two that are not the same have one type and version: the checks would see only the last of them.
 */
export function contractsIn(exports: Readonly<Record<string, unknown>>): Contract[] {
  const found = new Map<string, Contract>();
  for (const value of Object.values(exports)) {
    if (typeof value !== 'object' || value === null || !isContract(value)) continue;
    for (const contract of versionsOf(value)) {
      const name = nameOf(contract);
      if ((found.get(name) ?? contract) !== contract) {
        throw new Error(`There are two contracts ${name}: give one of them another type, or make it the next version`);
      }
      found.set(name, contract);
    }
  }
  return [...found.values()].sort((a, b) => (a.type < b.type ? -1 : a.type > b.type ? 1 : a.version - b.version));
}

/** `CustomerCreated.v2` */
export const nameOf = ({ type, version }: Contract): string => `${type}.v${version}`;

/**
 * The JSON Schema of what may be sent as a contract, and with it what its readers are bound by. Draft 7, which is what AsyncAPI takes a
 * schema for that does not say. What zod only checks in a function (`refine`) is not in it, unless `meta` says the same.
 */
export function schemaOf(contract: Contract): Schema {
  const { type, version, schema, exchange, routingKey, aggregateType, delivery, overLimit } = contract;
  // The input: zod shows the output of an object that takes unknown fields as if it took none.
  const { $schema, ...payload } = z.toJSONSchema(schema, { target: 'draft-7', io: 'input' });
  return {
    $schema,
    title: `${type} v${version}`,
    'x-exchange': exchange,
    'x-routing-key': routingKey,
    'x-aggregate-type': aggregateType,
    ...(delivery === 'required' ? {} : { 'x-delivery': delivery }),
    ...(overLimit === 'refuse' ? {} : { 'x-over-limit': overLimit }),
    ...payload,
  };
}
