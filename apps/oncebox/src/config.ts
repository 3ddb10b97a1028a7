import { parseDatabaseUrl } from '@oncebox/mysql';
import { ConfigError, databaseUrl, databaseUrls, loadConfig } from '@oncebox/service';
import { z } from 'zod';
import { UsageError } from './command.ts';

export interface ServiceArgument {
  readonly variable: string;
  readonly folder?: string;
}

export interface Service {
  readonly url: string;
  readonly schema: string;
  readonly folder?: string;
}

export interface MigrateConfig {
  readonly administratorUrl: string;
  readonly services: readonly Service[];
  /** Of the schemas of these services. */
  readonly relayUrls: readonly string[];
  /** Schemas that a relay is configured for and that are not migrated in this run. */
  readonly foreignRelays: readonly string[];
}

/** Reads `VARIABLE` or `VARIABLE:folder`. @throws UsageError */
export function parseService(text: string): ServiceArgument {
  const [, variable, folder] = /^([A-Za-z_][A-Za-z0-9_]*)(?::(.+))?$/.exec(text) ?? [];
  // Not repeated in the message: what looks like no name may be the URL itself.
  if (variable === undefined || folder?.startsWith('//')) {
    throw new UsageError(
      '--service takes the name of an environment variable, not a URL: a command line is no place for a password',
    );
  }
  return folder === undefined ? { variable } : { variable, folder };
}

const ADMINISTRATOR_FORM = 'must read mysql://user:password@host:port';

const administratorUrl = z.string({ error: ADMINISTRATOR_FORM }).refine(isDatabaseUrl, { error: ADMINISTRATOR_FORM });

/** Without a password the user that we make would be open to everyone who reaches the server. */
const account = z.string().refine(
  (text) => {
    const { user, password } = parseDatabaseUrl(text);
    return user !== '' && password !== '';
  },
  { error: 'must name a user and a password' },
);

/** Ends the process with a line that names the variable when one is missing or wrong. */
export function loadMigrateConfig(requested: readonly ServiceArgument[]): MigrateConfig {
  const { MIGRATE_DATABASE_URL, RELAY_DATABASE_URLS } = loadConfig(
    z.object({
      MIGRATE_DATABASE_URL: administratorUrl,
      RELAY_DATABASE_URLS: databaseUrls().pipe(z.array(account)).default([]),
    }),
  );
  const urls = loadConfig(
    z.object(Object.fromEntries(requested.map(({ variable }) => [variable, databaseUrl().pipe(account)]))),
  );
  const services = requested.map(({ variable, ...rest }) => {
    const url = String(urls[variable]);
    return { ...rest, url, schema: parseDatabaseUrl(url).schema };
  });
  assertOnePasswordEach([...services.map(({ url }) => url), ...RELAY_DATABASE_URLS]);
  const isOurs = (url: string) => services.some(({ schema }) => schema === parseDatabaseUrl(url).schema);
  return {
    administratorUrl: MIGRATE_DATABASE_URL,
    services,
    relayUrls: RELAY_DATABASE_URLS.filter(isOurs),
    foreignRelays: RELAY_DATABASE_URLS.filter((url) => !isOurs(url)).map((url) => parseDatabaseUrl(url).schema),
  };
}

/** One user may appear in many URLs. With two passwords, the one that is set last would lock the others out. */
function assertOnePasswordEach(urls: readonly string[]): void {
  const passwords = new Map<string, string>();
  for (const { user, password } of urls.map(parseDatabaseUrl)) {
    if ((passwords.get(user) ?? password) !== password) {
      throw new ConfigError(`Invalid configuration: the URLs give two passwords to the database user "${user}"`);
    }
    passwords.set(user, password);
  }
}

function isDatabaseUrl(text: string): boolean {
  try {
    parseDatabaseUrl(text);
    return true;
  } catch {
    return false;
  }
}
