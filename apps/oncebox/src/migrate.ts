import { join, relative } from 'node:path';
import { grantUsers, type MigrationSet, migrate, migrationStatus, type OnProgress } from '@oncebox/mysql';
import { readArguments } from './arguments.ts';
import { type Command, UsageError } from './command.ts';
import { loadMigrateConfig, type MigrateConfig, parseService, type Service } from './config.ts';
import { table } from './table.ts';

const HELP = `Usage: oncebox migrate [status] --service VARIABLE[:folder] [--service …] [--json]

Brings the schema of each service up to date: the tables of messaging, then those in the service's own folder, if given.
Makes the services' and the relays' users and grants each what it needs. Running it again does nothing.
"status" changes nothing and shows each migration: applied, pending, or why a run would refuse it (then it exits with 1).

  --service VARIABLE[:folder]  the environment variable that holds the service's database URL
                               (mysql://user:password@host:port/schema), and the folder of its own migrations
  --json                       print the result as JSON; progress goes to stderr

Environment, or a file .env:
  MIGRATE_DATABASE_URL         an administrator's URL: mysql://user:password@host:port
  RELAY_DATABASE_URLS          the relays' URLs, separated by commas; may be absent

Example: oncebox migrate --service BILLING_DATABASE_URL`;

export const migrateCommand: Command = { summary: 'create or update the schemas and users', help: HELP, run };

/** In the repository, or copied into the package. By the running file, so that a stale copy here is never used. */
const MESSAGING_FOLDER = join(
  import.meta.dirname,
  import.meta.filename.endsWith('.ts') ? '../../../migrations/messaging' : '../migrations/messaging',
);

async function run(args: readonly string[]): Promise<number> {
  const { action, services, json } = parse(args);
  const config = loadMigrateConfig(services);
  const onProgress: OnProgress = json ? console.error : console.log;
  return action === 'status' ? showStatus(config, json) : apply(config, json, onProgress);
}

function parse(args: readonly string[]) {
  const { values, positionals } = readArguments(args, {
    service: { type: 'string', multiple: true },
    json: { type: 'boolean', default: false },
  });
  const [action = 'apply', ...more] = positionals;
  if ((action !== 'apply' && action !== 'status') || more.length > 0) {
    throw new UsageError(`unexpected argument "${[action, ...more].at(-1)}"`);
  }
  if (values.service === undefined) throw new UsageError('which service? --service VARIABLE[:folder] is missing');
  return { action, services: values.service.map(parseService), json: values.json };
}

/** Named by their role and not by their folder: a ledger that knew a folder would forget it all when the folder moves. */
const setsOf = ({ folder }: Service): readonly MigrationSet[] => [
  { name: 'messaging', folder: relative(process.cwd(), MESSAGING_FOLDER) },
  ...(folder === undefined ? [] : [{ name: 'service', folder }]),
];

async function apply(
  { administratorUrl, services, relayUrls, foreignRelays }: MigrateConfig,
  json: boolean,
  onProgress: OnProgress,
): Promise<number> {
  const results: { schema: string; applied: readonly string[] }[] = [];
  for (const service of services) {
    const { schema, url: serviceUrl, folder } = service;
    const applied = await migrate(administratorUrl, { schema, sets: setsOf(service), onProgress });
    await grantUsers(administratorUrl, { serviceUrl, relayUrls, ownTables: folder !== undefined, onProgress });
    results.push({ schema, applied });
  }
  for (const schema of foreignRelays) onProgress(`${schema}: has a relay's URL and no --service; left alone`);
  if (json) console.log(JSON.stringify(results));
  return 0;
}

async function showStatus({ administratorUrl, services }: MigrateConfig, json: boolean): Promise<number> {
  const rows = [];
  for (const service of services) {
    const { schema } = service;
    const sets = setsOf(service);
    const found = await migrationStatus(administratorUrl, { schema, sets, onProgress: console.error });
    rows.push(...found.map((status) => ({ schema, ...status })));
  }
  if (json) {
    const plain = rows.map(({ problem, ...row }) =>
      problem === undefined ? row : { ...row, problem: { code: problem.code, message: problem.message } },
    );
    console.log(JSON.stringify(plain));
  } else {
    console.log(
      table([['SCHEMA', 'SET', 'MIGRATION', 'STATE'], ...rows.map((r) => [r.schema, r.set, r.name, r.state])]),
    );
    for (const { problem } of rows) if (problem !== undefined) console.log(`\n${problem.message} (${problem.code})`);
  }
  return rows.some(({ problem }) => problem !== undefined) ? 1 : 0;
}
