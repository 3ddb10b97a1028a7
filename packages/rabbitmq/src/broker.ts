import { createSender, type Sender } from './sender.ts';
import { createSerialStart, type SerialStart } from './serial-start.ts';
import { type Supervisor, type SupervisorOptions, superviseConnection } from './supervisor.ts';

/**
 * What the consumers of one process share: two connections, because a broker that holds back a connection that publishes would
 * hold back its acknowledgements too.
 */
export interface Broker {
  readonly consuming: Supervisor;
  readonly sender: Sender;
  readonly serialStart: SerialStart;
  /** Stop the consumers first. */
  close(): Promise<void>;
}

/**
 * Connects in the background, so it may be called while the broker is away.
 *
 * @throws BrokerError ONCEBOX_INVALID_BROKER_URL
 */
export function connectBroker(options: SupervisorOptions): Broker {
  const consuming = superviseConnection({ ...options, name: `${options.name} consuming` });
  const publishing = superviseConnection({ ...options, name: `${options.name} publishing` });
  const sender = createSender(publishing, options);
  return {
    consuming,
    sender,
    serialStart: createSerialStart(),
    async close() {
      await sender.close();
      await Promise.all([consuming.close(), publishing.close()]);
    },
  };
}
