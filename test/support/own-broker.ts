import { onTestFinished } from 'vitest';
import { type Broker, createBroker } from './broker.ts';
import { newSystem, type RecordedSystem } from './customers.ts';
import { record } from './wire.ts';

/** A system whose messages pass by a broker of its own test, which may stop it. */
export interface OnBroker extends RecordedSystem {
  readonly broker: Broker;
  /** Of relay and worker. */
  readonly settings: { readonly AMQP_URL: string };
}

export async function systemOnBroker(): Promise<OnBroker> {
  const broker = await createBroker();
  onTestFinished(() => broker.remove());
  const { amqpUrl } = broker;
  const system = await newSystem();
  const vhost = { ...system.vhost, amqpUrl };
  return { ...system, vhost, broker, settings: { AMQP_URL: amqpUrl }, recording: await record(amqpUrl) };
}
