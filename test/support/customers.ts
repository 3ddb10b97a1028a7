import { CustomerCreatedV1, CustomerUpdated } from '@oncebox/contracts';
import { createPool, type Pool, type Transaction } from '@oncebox/mysql';
import { outbox } from '@oncebox/outbox';
import { v7 as uuidv7 } from 'uuid';
import { inject, onTestFinished } from 'vitest';
import type { Customer } from '../../apps/api/src/customers/schemas.ts';
import { insert, update } from '../../apps/api/src/customers/store.ts';
import type { Servers } from '../../deploy/infra/servers.ts';
import type { Program } from './processes.ts';
import { createSystem, type System } from './system.ts';
import { type Recording, record } from './wire.ts';

/** A system of one test's own, whose invariants can be checked over all that is in it. */
export interface RecordedSystem extends System {
  readonly recording: Recording;
}

/** Dropped when the test has ended, after its processes. */
export async function newSystem(servers: Servers = inject('servers')): Promise<RecordedSystem> {
  const system = await createSystem(servers);
  onTestFinished(() => system.drop());
  return { ...system, recording: await record(system.vhost.amqpUrl) };
}

/**
 * A worker, and then the relay: the recording takes every message, so one that is published before the worker's queues are there
 * is not returned and never reaches them.
 */
export async function deliver(system: System): Promise<{ readonly relay: Program; readonly worker: Program }> {
  const worker = system.worker();
  await worker.ready();
  return { worker, relay: system.relay() };
}

/** Connections as the api's user; closed when the test ends. */
export function shopPool({ schemas }: System, connections = 4): Pool {
  const pool = createPool(schemas.shop.url, { connections });
  onTestFinished(() => pool.end());
  return pool;
}

/** What the api does for a POST, in a transaction that the test has a hold of. */
export async function createCustomer(tx: Transaction): Promise<Customer> {
  const id = uuidv7();
  const customer = await insert(tx, id, { email: `${id}@example.com`, name: 'Zoë' });
  await outbox.add(tx, CustomerCreatedV1.message(payloadOf(customer)));
  return customer;
}

/** And for a PATCH. */
export async function changeCustomer(tx: Transaction, { id, version }: Customer): Promise<Customer> {
  const customer = await update(tx, id, version, { name: `Zoë the ${version + 1}.` });
  if (typeof customer === 'string') throw new Error(`Customer ${id} is ${customer} at version ${version}`);
  await outbox.add(tx, CustomerUpdated.message(payloadOf(customer)));
  return customer;
}

const payloadOf = ({ id, email, name, version }: Customer) => ({ customerId: id, email, name, version });
