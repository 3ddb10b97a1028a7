import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { EVENTS_EXCHANGE } from '@oncebox/message';
import { createPool, type Pool } from '@oncebox/mysql';
import { connect } from 'amqplib';
import type { RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { startCollector } from '../support/collector.ts';
import { dropAll, urlOf } from '../support/schemas.ts';
import { createVhost, type Vhost } from '../support/vhost.ts';

/** docs/adopting.md, done word for word in an empty folder with the packages as they would be published. */

const ROOT = join(import.meta.dirname, '../..');
const GUIDE = readFileSync(join(ROOT, 'docs/adopting.md'), 'utf8');
const PATIENCE = { timeout: 30_000, interval: 50 };

const { databaseUrl } = inject('servers');
const run = randomBytes(5).toString('hex');
const schema = `billing_${run}`;
const as = (user: string) => urlOf(databaseUrl, schema, { user: `${user}_${run}`, password: run });
const env = {
  ...process.env,
  // This Node, in scripts and shebangs too, whatever the machine has.
  PATH: [dirname(process.execPath), process.env['PATH']].join(delimiter),
  MIGRATE_DATABASE_URL: databaseUrl,
  BILLING_DATABASE_URL: as('billing'),
  RELAY_DATABASE_URLS: as('relay'),
};

const made: string[] = [];
let folder: string;
let vhost: Vhost;
let admin: Pool;

beforeAll(async () => {
  vhost = await createVhost(inject('servers'));
  admin = createPool(urlOf(databaseUrl, schema), { connections: 2 });
  const workspace = copyWorkspace();
  folder = mkdtempSync(join(tmpdir(), 'oncebox-adopter-'));
  made.push(folder);
  await execute(
    'npm',
    ['pack', '--foreground-scripts', '-w', 'packages', '-w', 'apps/oncebox', '--pack-destination', folder],
    workspace,
  );
  writeFileSync(join(folder, 'package.json'), '{ "private": true, "type": "module" }');
  await execute('npm', ['install', '--prefer-offline', '--no-audit', '--no-fund', ...dependencies()], folder);
  for (const [, name = '', content = ''] of GUIDE.matchAll(/^```\w+ (\S+)\n(.*?)^```$/gms)) {
    mkdirSync(join(folder, dirname(name)), { recursive: true });
    writeFileSync(join(folder, name), content);
  }
});

afterAll(async () => {
  await admin.end();
  await dropAll(databaseUrl, [schema], [env.BILLING_DATABASE_URL, env.RELAY_DATABASE_URLS]);
  await vhost.drop();
  for (const path of made) rmSync(path, { recursive: true });
});

/**
 * Packing rewrites `dist`, which another run of this test might be reading. In the repository, and not in /tmp, so that all
 * but our own packages is found in its node_modules.
 */
function copyWorkspace(): string {
  mkdirSync(join(ROOT, '.infra'), { recursive: true });
  const copy = mkdtempSync(join(ROOT, '.infra/packed-'));
  made.push(copy);
  for (const part of ['package.json', 'tsconfig.json', 'LICENSE', 'migrations', 'packages', 'apps/oncebox']) {
    const filter = (path: string) => !path.endsWith('/dist');
    cpSync(join(ROOT, part), join(copy, part), { recursive: true, filter });
  }
  mkdirSync(join(copy, 'node_modules/@oncebox'), { recursive: true });
  for (const name of readdirSync(join(copy, 'packages'))) {
    symlinkSync(join(copy, 'packages', name), join(copy, 'node_modules/@oncebox', name));
    // Of a source that has been deleted since: not to be packed.
    mkdirSync(join(copy, 'packages', name, 'dist'));
    writeFileSync(join(copy, 'packages', name, 'dist/stale.js'), '');
  }
  return copy;
}

/** What the guide says to install, ours from the tarballs; and what its Knex example and its types need. */
function dependencies(): string[] {
  const [, named = ''] = /^npm install (.+)$/m.exec(GUIDE) ?? [];
  const isOurs = (name: string) => name.startsWith('@oncebox/') || name === 'oncebox';
  const others = named.split(' ').filter((name) => !isOurs(name));
  // What the command needs and the guide does not name, a registry would give.
  const { dependencies: ofTheCommand } = JSON.parse(readFileSync(join(ROOT, 'apps/oncebox/package.json'), 'utf8'));
  const ours = new Set([...named.split(' '), ...Object.keys(ofTheCommand)].filter(isOurs));
  const tarballs = readdirSync(folder).filter((file) => file.endsWith('.tgz'));
  return [
    ...Array.from(ours, (name) => {
      const prefix = name.replace('@', '').replace('/', '-');
      return `./${tarballs.find((file) => new RegExp(`^${prefix}-\\d`).test(file))}`;
    }),
    ...others,
    'knex@3',
    'mysql2@3',
    '@types/node@24',
  ];
}

async function execute(command: string, args: readonly string[], cwd: string): Promise<string> {
  const running = promisify(execFile)(command, args, { cwd, env, timeout: 100_000 });
  // What npm and tsc have to say is on stdout, which the error alone does not show.
  const { stdout } = await running.catch((error) => {
    throw new Error(`${command} ${args[0]} failed: ${error.stdout}${error.stderr}`, { cause: error });
  });
  return stdout;
}

const select = async (sql: string): Promise<RowDataPacket[]> => (await admin.query<RowDataPacket[]>(sql))[0];

const packed = () => {
  const modules = join(folder, 'node_modules');
  const names = ['oncebox', ...readdirSync(join(modules, '@oncebox')).map((name) => `@oncebox/${name}`)];
  return names.map((name) => {
    const path = join(modules, name);
    return { name, path, files: readdirSync(path, { recursive: true, encoding: 'utf8' }) };
  });
};

it('packs JavaScript, types and migrations, and neither sources nor tests nor leftovers', () => {
  expect(packed().map(({ name }) => name)).not.toContain('@oncebox/contracts');
  for (const { files } of packed()) {
    expect(files).toEqual(expect.arrayContaining(['LICENSE', 'package.json', 'dist']));
    expect(files.filter((file) => /\.test\.|stale|tsbuildinfo|(?<!\.d)\.ts$/.test(file))).toEqual([]);
  }
  expect(readdirSync(join(folder, 'node_modules/oncebox/migrations/messaging'))).toEqual(
    readdirSync(join(ROOT, 'migrations/messaging')),
  );
});

it('declares what it imports as its dependencies', () => {
  for (const { name, path, files } of packed()) {
    const { dependencies: declared } = JSON.parse(readFileSync(join(path, 'package.json'), 'utf8'));
    const code = files
      .filter((file) => /\.(js|d\.ts)$/.test(file))
      .map((file) => readFileSync(join(path, file), 'utf8'));
    const imports = code.join('\n').matchAll(/ from '((?:@[\w-]+\/)?[\w-]+)(?:\/[\w/-]+)?';/g);
    const undeclared = [...imports].map(([, from = '']) => from).filter((from) => !(from in declared));
    expect(undeclared, name).toEqual([]);
  }
});

it('passes a strict type check of its users, who are refused what is wrong', async () => {
  const compilerOptions = {
    target: 'es2024',
    module: 'nodenext',
    types: ['node'],
    strict: true,
    exactOptionalPropertyTypes: true,
    allowImportingTsExtensions: true,
    noEmit: true,
    skipLibCheck: false, // or a declaration that is not found would pass as `any`
  };
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['*.ts'] }));
  writeFileSync(
    join(folder, 'refused.ts'),
    `import { type Pool, transaction } from '@oncebox/mysql';
     import { outbox } from '@oncebox/outbox';
     import { InvoiceIssued } from './contracts.ts';
     export const write = (pool: Pool) => transaction(pool, async (tx) => {
       // @ts-expect-error a payload that is not of its contract
       await outbox.add(tx, InvoiceIssued.message({ invoiceId: 1, cents: 1 }));
       // @ts-expect-error a pool is no transaction
       await outbox.add(pool, InvoiceIssued.message({ invoiceId: '1', cents: 1 }));
     });`,
  );
  await execute(join(ROOT, 'node_modules/.bin/tsc'), ['-p', folder], folder);
});

it('migrates, announces and books an invoice once although its message comes twice, and stops cleanly', async () => {
  const messaging = await execute('npx', ['--no', 'oncebox', 'migrate', '--service', 'BILLING_DATABASE_URL'], folder);
  expect(messaging).toContain(`${schema}: applied messaging/0001_outbox.sql`);
  expect(messaging).not.toContain('service/');
  await execute('npx', ['--no', 'oncebox', 'migrate', '--service', 'BILLING_DATABASE_URL:migrations'], folder);

  const collector = await startCollector();
  const billing = startBilling({ OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, OTEL_SERVICE_NAME: 'billing' });
  try {
    const invoice = { invoice_id: expect.any(String), cents: 4_200 };
    const bookings = () => select('SELECT invoice_id, cents FROM bookings');
    await expect.poll(bookings, PATIENCE).toEqual([invoice]).catch(billing.explain);
    expect(await bookings()).toEqual(await select('SELECT id AS invoice_id, cents FROM invoices'));
    await expect.poll(() => select('SELECT state FROM outbox'), PATIENCE).toEqual([{ state: 'published' }]);

    const [message] = await select('SELECT id, type, version, routing_key, payload FROM outbox');
    const connection = await connect(vhost.amqpUrl);
    const channel = await connection.createConfirmChannel();
    channel.publish(EVENTS_EXCHANGE, message?.['routing_key'], Buffer.from(message?.['payload']), {
      messageId: message?.['id'],
      type: message?.['type'],
      headers: { schemaversion: message?.['version'] },
    });
    await channel.waitForConfirms(); // the queue has it
    await connection.close();
    await expect.poll(() => vhost.depth('bookkeeping'), PATIENCE).toBe(0);
    expect(await billing.stop()).toBe(0);
    // In the queue again, had it not been handled and acknowledged.
    expect(await vhost.depth('bookkeeping')).toBe(0);
    expect(await bookings()).toEqual([invoice]);
    expect(collector.spans.map(({ service, name }) => `${service}: ${name}`)).toEqual(
      expect.arrayContaining([
        'billing: publish oncebox.events:invoice.issued',
        'billing: process oncebox.events:invoice.issued:bookkeeping',
      ]),
    );
  } finally {
    billing.kill();
    await collector.close();
  }
});

it("joins Knex's transaction", async () => {
  writeFileSync(
    join(folder, 'joined.ts'),
    `import knexOf from 'knex';
     import { issueInvoice } from './knex.ts';
     const knex = knexOf({ client: 'mysql2', connection: process.env['BILLING_DATABASE_URL'] ?? '' });
     await issueInvoice(knex, '01980a5e-5c00-7000-8000-000000000001', 1);
     const refused = await issueInvoice(knex, '01980a5e-5c00-7000-8000-000000000002', -1).catch((error) => error.code);
     console.log(refused);
     await knex.destroy();`,
  );
  expect(await execute('node', ['joined.ts'], folder)).toBe('ONCEBOX_INVALID_PAYLOAD\n');
  const written = [{ id: '01980a5e-5c00-7000-8000-000000000001' }];
  expect(await select('SELECT id FROM invoices WHERE cents <> 4200')).toEqual(written);
  expect(await select("SELECT aggregateid AS id FROM outbox WHERE state = 'pending'")).toEqual(written);
});

function startBilling(tracing: Record<string, string>) {
  // As docs/operations.md has it for a process of one's own.
  const child = spawn('node', ['--import', '@oncebox/service/tracing', 'billing.ts'], {
    cwd: folder,
    env: { ...env, AMQP_URL: vhost.amqpUrl, ...tracing },
  });
  const ended = once(child, 'close');
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text));
  return {
    explain(error: unknown): never {
      throw new Error(`billing.ts printed:\n${output}`, { cause: error });
    },
    async stop(): Promise<unknown> {
      child.kill('SIGTERM');
      const [code] = await ended;
      return code;
    },
    kill: () => child.kill('SIGKILL'),
  };
}
