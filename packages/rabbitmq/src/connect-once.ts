import { setTimeout as delay } from 'node:timers/promises';
import type { ChannelModel } from 'amqplib';
import { BrokerError } from './errors.ts';
import { type Supervisor, type SupervisorOptions, superviseConnection } from './supervisor.ts';

const CONNECT_MS = 10_000;

/**
 * A connection for a command: what breaks it ends the command. @throws BrokerError
 * ONCEBOX_INVALID_BROKER_URL; ONCEBOX_BROKER_AWAY
 */
export async function connectOnce(
  options: SupervisorOptions,
): Promise<{ readonly supervisor: Supervisor; readonly connection: ChannelModel }> {
  const supervisor = superviseConnection(options);
  const connection = await Promise.race([supervisor.connected(), delay(CONNECT_MS, undefined, { ref: false })]);
  if (connection !== undefined) return { supervisor, connection };
  await supervisor.close();
  throw new BrokerError('ONCEBOX_BROKER_AWAY', `No broker has answered within ${CONNECT_MS} ms`);
}
