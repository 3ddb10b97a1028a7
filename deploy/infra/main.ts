import { spawn } from 'node:child_process';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { nativeIsRunning, removeNative, startNative, stopNative } from './native.ts';
import { HOST_PORTS } from './servers.ts';
import { chooseSource, composeAnswers } from './source.ts';

/** `node deploy/infra/main.ts up|down|clean`: the servers that `make dev` and `make migrate` work with. */

const ROOT = join(import.meta.dirname, '../..');
const INFRA = join(ROOT, '.infra');
const DEV = join(INFRA, 'dev');
/** One directory for each test run; see test/support/servers.ts. */
const TEST = join(INFRA, 'test');

const say = (line: string): void => console.log(`infra: ${line}`);

async function up(): Promise<void> {
  // An instance of an earlier run has the ports already, whatever else has become possible since.
  const source = nativeIsRunning(DEV)
    ? 'native'
    : await chooseSource(process.env, ['MIGRATE_DATABASE_URL', 'AMQP_URL'], composeAnswers);
  if (source === 'given') return say('using the servers of MIGRATE_DATABASE_URL and AMQP_URL; nothing to start');
  if (source === 'docker') await compose('up', '--detach', '--wait', 'mysql', 'rabbitmq');
  else await startNative({ dir: DEV, ports: HOST_PORTS, onProgress: say });
  const { database, amqp, management } = HOST_PORTS;
  say(`up (${source}): database 127.0.0.1:${database}, AMQP 127.0.0.1:${amqp}, management 127.0.0.1:${management}`);
}

/** Stops the servers; their data stays. */
async function down(): Promise<void> {
  await stopNative(DEV);
  if (await composeAnswers()) await compose('stop');
}

/** Stops the servers, those of killed test runs too, and forgets everything they knew. */
async function clean(): Promise<void> {
  const tests = existsSync(TEST) ? readdirSync(TEST).map((name) => join(TEST, name)) : [];
  await Promise.all([DEV, ...tests].map(removeNative));
  rmSync(INFRA, { recursive: true, force: true });
  if (await composeAnswers()) await compose('down', '--volumes', '--remove-orphans', '--rmi', 'local');
}

async function compose(...args: readonly string[]): Promise<void> {
  const child = spawn('docker', ['compose', ...args], { cwd: ROOT, stdio: 'inherit' });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject).once('close', resolve);
  });
  if (code !== 0)
    throw new Error(`"docker compose ${args.join(' ')}" failed with exit code ${code}; its reason is above`);
}

const commands = new Map([
  ['up', up],
  ['down', down],
  ['clean', clean],
]);
const command = commands.get(process.argv[2] ?? '');
try {
  if (!command) throw new Error(`say which: ${[...commands.keys()].join(', ')}`);
  await command();
} catch (error) {
  console.error(`infra: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
}
