import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { grantUsers, migrate, parseDatabaseUrl } from '@oncebox/mysql';
import { createConnection } from 'mysql2/promise';
import type { Servers } from '../../deploy/infra/servers.ts';

const MIGRATIONS = join(import.meta.dirname, '../../migrations');

export interface TestSchema {
  readonly name: string;
  /** As the service itself connects: the api, the worker. */
  readonly url: string;
  /** The same schema as the administrator sees it, to arrange and to look. */
  readonly adminUrl: string;
}

/** The schemas of one test file, with users of their own: files run side by side on one server and must not meet. */
export interface TestSchemas {
  readonly shop: TestSchema;
  readonly fulfilment: TestSchema;
  /** As RELAY_DATABASE_URLS: one relay user, both schemas. */
  readonly relayUrls: string;
  drop(): Promise<void>;
}

/** Names and users that nobody else has; nothing is made yet. */
export function nameSchemas({ databaseUrl }: Pick<Servers, 'databaseUrl'>): TestSchemas {
  const run = randomBytes(5).toString('hex');
  const as = (user: string) => ({ user: `${user}_${run}`, password: run });
  const schema = (folder: string, user: string): TestSchema => {
    const name = `${folder}_${run}`;
    return { name, url: urlOf(databaseUrl, name, as(user)), adminUrl: urlOf(databaseUrl, name) };
  };
  const shop = schema('shop', 'api');
  const fulfilment = schema('fulfilment', 'worker');
  const relayUrls = [shop, fulfilment].map(({ name }) => urlOf(databaseUrl, name, as('relay')));
  return {
    shop,
    fulfilment,
    relayUrls: relayUrls.join(','),
    drop: () => dropAll(databaseUrl, [shop.name, fulfilment.name], [shop.url, fulfilment.url, ...relayUrls]),
  };
}

/** Made as `oncebox migrate` makes them: the real migrations, the real grants. */
export async function createSchemas(servers: Pick<Servers, 'databaseUrl'>): Promise<TestSchemas> {
  const { databaseUrl } = servers;
  const schemas = nameSchemas(servers);
  const relayUrls = schemas.relayUrls.split(',');
  const make = async ({ name, url }: TestSchema, folder: string): Promise<void> => {
    const sets = [
      { name: 'messaging', folder: join(MIGRATIONS, 'messaging') },
      { name: 'service', folder: join(MIGRATIONS, folder) },
    ];
    await migrate(databaseUrl, { schema: name, sets });
    await grantUsers(databaseUrl, { serviceUrl: url, relayUrls, ownTables: true });
  };
  await Promise.all([make(schemas.shop, 'shop'), make(schemas.fulfilment, 'fulfilment')]);
  return schemas;
}

/** The administrator's URL with a schema, and with another user if one is given. */
export function urlOf(administratorUrl: string, schema: string, as?: { user: string; password: string }): string {
  const url = new URL(administratorUrl);
  url.pathname = `/${schema}`;
  url.username = as?.user ?? url.username;
  url.password = as?.password ?? url.password;
  return url.href;
}

export async function dropAll(
  administratorUrl: string,
  schemas: readonly string[],
  urls: readonly string[],
): Promise<void> {
  const connection = await createConnection({ uri: administratorUrl });
  for (const name of schemas) await connection.query('DROP DATABASE IF EXISTS ??', [name]);
  for (const user of new Set(urls.map((url) => parseDatabaseUrl(url).user))) {
    await connection.query("DROP USER IF EXISTS ?@'%'", [user]);
  }
  await connection.end();
}
