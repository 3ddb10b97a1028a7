import { createPool, DatabaseError, errnoOf, isUnavailable, type Pool, parseDatabaseUrl } from '@oncebox/mysql';
import { databaseUrl, databaseUrls, loadConfig, reasonCode } from '@oncebox/service';
import { z } from 'zod';
import { UsageError } from './command.ts';
import { parseService } from './config.ts';

export interface Source {
  /** The schema's name; with its server, when two of one name are given. */
  readonly schema: string;
  readonly pool: Pool;
}

export interface Sources {
  /** Those of RELAY_DATABASE_URLS. */
  readonly outboxes: readonly Source[];
  /** The services' schemas: inboxes, where consumers are registered. */
  readonly services: readonly Source[];
}

/** The options by which every command that looks into schemas chooses them. */
export const SOURCE_OPTIONS = {
  service: { type: 'string', multiple: true },
  schema: { type: 'string' },
  json: { type: 'boolean', default: false },
} as const;

const SERVICE_HELP =
  '  --service VARIABLE    also look into the schema whose URL this environment variable holds; may be repeated';
const SCHEMA_HELP = '  --schema NAME         look into this schema alone';

/** For a command that looks into all of the schemas, without `--schema`. */
export const ALL_SOURCES_HELP = `${SERVICE_HELP}
  --json                print the result as JSON; progress goes to stderr

Environment, or a file .env:
  RELAY_DATABASE_URLS   the schemas of the outboxes, as the relay reads them
  API_DATABASE_URL, WORKER_DATABASE_URL   the schemas of the consumers, as the services read them; may be absent`;

export const SOURCE_HELP = ALL_SOURCES_HELP.replace(SERVICE_HELP, `${SERVICE_HELP}\n${SCHEMA_HELP}`);

export interface SourceOptions {
  readonly service?: readonly string[] | undefined;
  readonly schema?: string | undefined;
}

type Kind = keyof Sources;

/** The schemas that the environment and the command line name do not answer as they should. */
export class SourceError extends Error {
  override readonly name = 'SourceError';
  readonly code: 'ONCEBOX_NO_SCHEMA' | 'ONCEBOX_DATABASE_AWAY' | 'ONCEBOX_NOT_MIGRATED' | 'ONCEBOX_ACCESS_DENIED';

  constructor(code: SourceError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

/**
 * Runs `work` on the schemas of the environment, and closes the connections.
 *
 * @param uses the kinds of schemas that it looks into; those of the others are not opened.
 * @throws SourceError when there is none of any of these kinds, or when one of them does not answer as it should.
 */
export async function withSources<T>(
  options: SourceOptions,
  uses: readonly Kind[],
  work: (sources: Sources) => Promise<T>,
): Promise<T> {
  const urls = loadUrls(options.service ?? []);
  const sources = {
    outboxes: uses.includes('outboxes') ? open(urls.outboxes, options.schema) : [],
    services: uses.includes('services') ? open(urls.services, options.schema) : [],
  };
  try {
    if (uses.every((kind) => sources[kind].length === 0)) {
      if (options.schema === undefined) throw noSchema(uses);
      throw new UsageError(`--schema ${options.schema}: no URL that this command reads names that schema`);
    }
    return await work(sources);
  } catch (error) {
    throw explain(error);
  } finally {
    await Promise.all([...sources.outboxes, ...sources.services].map(({ pool }) => pool.end()));
  }
}

/**
 * The sources of this name, where the others are asked too.
 *
 * @throws UsageError when there is none.
 */
export function onlySchema(sources: readonly Source[], name: string | undefined): readonly Source[] {
  const found = sources.filter(({ schema }) => name === undefined || schema === name);
  if (found.length > 0) return found;
  throw new UsageError(`--schema ${name}: no URL that this command reads names that schema`);
}

function loadUrls(given: readonly string[]): Readonly<Record<Kind, readonly string[]>> {
  const variables = given.map((text) => {
    const { variable, folder } = parseService(text);
    if (folder !== undefined) throw new UsageError('--service takes a variable without a folder here');
    return variable;
  });
  const { RELAY_DATABASE_URLS, API_DATABASE_URL, WORKER_DATABASE_URL } = loadConfig(
    z.object({
      RELAY_DATABASE_URLS: databaseUrls().default([]),
      API_DATABASE_URL: databaseUrl().optional(),
      WORKER_DATABASE_URL: databaseUrl().optional(),
    }),
  );
  const others = loadConfig(z.object(Object.fromEntries(variables.map((variable) => [variable, databaseUrl()]))));
  const services = [API_DATABASE_URL, WORKER_DATABASE_URL, ...variables.map((variable) => others[variable])];
  return { outboxes: RELAY_DATABASE_URLS, services: services.filter((url) => url !== undefined) };
}

/** A person waits, and a read of a large table takes its time. */
export const STATEMENT_MS = 300_000;

/** One source a schema, however often it is named: what is counted twice would be wrong. */
function open(urls: readonly string[], only: string | undefined): Source[] {
  const places = new Map(urls.map((url) => [placeOf(url), url]));
  const names = [...places.values()].map((url) => parseDatabaseUrl(url).schema);
  return Array.from(places, ([place, url]) => {
    const { schema } = parseDatabaseUrl(url);
    const isAmbiguous = names.indexOf(schema) !== names.lastIndexOf(schema);
    return { schema: isAmbiguous ? place : schema, url };
  })
    .filter(({ schema }) => only === undefined || schema === only)
    .map(({ schema, url }) => ({
      schema,
      pool: createPool(url, { connections: 2, statementTimeoutMs: STATEMENT_MS }),
    }));
}

function placeOf(url: string): string {
  const { host, port, schema } = parseDatabaseUrl(url);
  return `${schema}@${host}:${port}`;
}

/** What to set so that there are schemas of these kinds. */
export function noSchema(kinds: readonly Kind[]): SourceError {
  const advice = {
    outboxes: 'No outbox to look into: set RELAY_DATABASE_URLS to the URLs that the relay has',
    services:
      'No consumers to look at: set WORKER_DATABASE_URL, or name the variable that holds its URL with --service',
  };
  return new SourceError('ONCEBOX_NO_SCHEMA', kinds.map((kind) => advice[kind]).join('. '));
}

/** The server's own words name the table or the address; these say what to do. They hold no data: no statement fails for a value here. */
function explain(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof SourceError) return error;
  // Of a connection that could not be had, the server's own error is the cause.
  const told = error instanceof DatabaseError && error.cause instanceof Error ? error.cause : error;
  const errno = errnoOf(told) ?? 0;
  if ([1049, 1054, 1146].includes(errno)) {
    return new SourceError('ONCEBOX_NOT_MIGRATED', `${told.message}. "oncebox migrate" brings the schema up to date`);
  }
  if ([1044, 1045, 1142, 1143].includes(errno)) {
    return new SourceError(
      'ONCEBOX_ACCESS_DENIED',
      `${told.message}. "oncebox migrate" makes the users of the URLs and grants them what they need`,
    );
  }
  if (!isUnavailable(error)) return error;
  return new SourceError(
    'ONCEBOX_DATABASE_AWAY',
    `A database does not answer: ${told.message || reasonCode(error)}. Is the server up, and are the URLs right?`,
  );
}
