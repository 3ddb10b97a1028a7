import { parseDatabaseUrl } from '@oncebox/mysql';
import type { Place } from '../support/invariants.ts';
import { launch } from '../support/program.ts';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';
import { lookInto, type Trio, trioOn } from '../support/trio.ts';
import { type Recording, record } from '../support/wire.ts';
import { type RestartableServers, startServers } from './servers.ts';
import { openPassage, type Passage } from './silence.ts';

/** Servers of one run's own, migrated, where all that is published is recorded. */
export interface Stage extends RestartableServers {
  /** Its processes reach the servers by way of `passages`; who looks, and who disturbs, does not. */
  readonly trio: Trio;
  readonly place: Place & { readonly recording: Recording; readonly schema: string };
  readonly passages: { readonly database: Passage; readonly broker: Passage };
  /** Of the api, the worker and the relays. */
  readonly users: readonly { readonly user: string; readonly password: string }[];
  close(): Promise<void>;
}

export async function openStage(onProgress: (line: string) => void): Promise<Stage> {
  const restartable = await startServers(onProgress);
  const { databaseUrl, amqpUrl } = restartable.servers;
  const schemas = await createSchemas({ databaseUrl });
  const { close: closeEyes, ...eyes } = lookInto(schemas);
  const passages = { database: await openPassage(databaseUrl), broker: await openPassage(amqpUrl) };
  const relayUrls = schemas.relayUrls.split(',');
  return {
    ...restartable,
    trio: trioOn(by(passages.database, schemas), passages.broker.through(amqpUrl), launch),
    place: { ...eyes, vhost: { amqpUrl }, recording: await record(amqpUrl), schema: schemas.shop.name },
    passages,
    users: [schemas.shop.url, schemas.fulfilment.url, ...relayUrls.slice(0, 1)].map(parseDatabaseUrl),
    async close() {
      for (const passage of Object.values(passages)) passage.close();
      await closeEyes();
      await restartable.remove();
    },
  };
}

const by = ({ through }: Passage, { shop, fulfilment, relayUrls, drop }: TestSchemas): TestSchemas => ({
  shop: { ...shop, url: through(shop.url) },
  fulfilment: { ...fulfilment, url: through(fulfilment.url) },
  relayUrls: relayUrls.split(',').map(through).join(),
  drop,
});
