import type { ChannelModel } from 'amqplib';
import { onChannelOfItsOwn } from './channel.ts';
import { BrokerError, isRefusedAs } from './errors.ts';

/**
 * Makes sure that the exchange of a contract is there before a queue is bound to it. It is declared
 * as ours are. One that exists as a topic exchange with other properties serves as well, and so
 * does one that this user may not declare, whatever it is.
 *
 * @throws BrokerError ONCEBOX_TOPOLOGY_MISMATCH for one of another type; ONCEBOX_NO_EXCHANGE for
 *   one that is missing and that this
 *   user may not declare.
 */
export async function declareContractExchange(connection: ChannelModel, exchange: string): Promise<void> {
  try {
    await onChannelOfItsOwn(connection, (channel) => channel.assertExchange(exchange, 'topic', { durable: true }));
  } catch (error) {
    if (isRefusedAs(403, error)) return await assertThere(connection, exchange, error);
    if (!isRefusedAs(406, error)) throw error;
    // The type is the first property that a broker compares, so its name is in the part of the text
    // that is not cut.
    if (!error.message.includes("inequivalent arg 'type'")) return;
    throw new BrokerError(
      'ONCEBOX_TOPOLOGY_MISMATCH',
      `The exchange ${exchange} of a contract exists and is no topic exchange, so a binding may mean something else there. ` +
        'Name another exchange in the contract. To have it used as it is, take the right to configure it from this user. ' +
        error.message,
      { cause: error },
    );
  }
}

async function assertThere(connection: ChannelModel, exchange: string, refusal: Error): Promise<void> {
  try {
    await onChannelOfItsOwn(connection, (channel) => channel.checkExchange(exchange));
  } catch (error) {
    if (!isRefusedAs(404, error)) throw error;
    throw new BrokerError(
      'ONCEBOX_NO_EXCHANGE',
      `The exchange ${exchange} of a contract does not exist, and this user may not declare it. Declare it (topic, durable), or ` +
        'grant the user to configure it',
      { cause: refusal },
    );
  }
}
