import { setTimeout as delay } from 'node:timers/promises';
import type { ChannelModel } from 'amqplib';
import { type ConfirmingChannel, openConfirmingChannel } from './confirms.ts';
import { BrokerError } from './errors.ts';
import { type Supervisor, type SupervisorOptions, superviseConnection } from './supervisor.ts';

const CONNECT_MS = 10_000;
const CONFIRM_MS = 10_000;

export interface OneConnection {
  /** Its owner must close it. */
  readonly supervisor: Supervisor;
  readonly connection: ChannelModel;
  /** Opens a channel whose loss, or a confirm that is late, ends the command. */
  openSender(window: number): Promise<ConfirmingChannel>;
}

/**
 * A connection for a command: what breaks it ends the command.
 *
 * @throws BrokerError ONCEBOX_INVALID_BROKER_URL; ONCEBOX_BROKER_AWAY
 */
export async function connectOnce(options: SupervisorOptions): Promise<OneConnection> {
  const supervisor = superviseConnection(options);
  const connection = await Promise.race([supervisor.connected(), delay(CONNECT_MS, undefined, { ref: false })]);
  if (connection === undefined) {
    await supervisor.close();
    throw new BrokerError('ONCEBOX_BROKER_AWAY', `No broker has answered within ${CONNECT_MS} ms`);
  }
  const onTimeout = (): void => supervisor.drop(`no confirm within ${CONFIRM_MS} ms`);
  const openSender = (window: number): Promise<ConfirmingChannel> =>
    openConfirmingChannel(connection, { window, confirmTimeoutMs: CONFIRM_MS, onTimeout });
  return { supervisor, connection, openSender };
}
