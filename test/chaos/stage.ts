import type { Place } from '../support/invariants.ts';
import { launch } from '../support/program.ts';
import { createSchemas } from '../support/schemas.ts';
import { lookInto, type Trio, trioOn } from '../support/trio.ts';
import { type Recording, record } from '../support/wire.ts';
import { type RestartableServers, startServers } from './servers.ts';

/** Servers of one run's own, migrated, where all that is published is recorded. */
export interface Stage extends RestartableServers {
  readonly trio: Trio;
  readonly place: Place & { readonly recording: Recording };
  close(): Promise<void>;
}

export async function openStage(onProgress: (line: string) => void): Promise<Stage> {
  const restartable = await startServers(onProgress);
  const { databaseUrl, amqpUrl } = restartable.servers;
  const schemas = await createSchemas({ databaseUrl });
  const { close: closeEyes, ...eyes } = lookInto(schemas);
  return {
    ...restartable,
    trio: trioOn(schemas, amqpUrl, launch),
    place: { ...eyes, vhost: { amqpUrl }, recording: await record(amqpUrl) },
    async close() {
      await closeEyes();
      await restartable.remove();
    },
  };
}
