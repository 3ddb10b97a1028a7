import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { canInstall, install } from './install.ts';
import { mariadb, startMariadb } from './mariadb.ts';
import { type OnProgress, runningPid, stop } from './process.ts';
import { epmd, rabbitmq, startRabbitmq } from './rabbitmq.ts';
import { type Ports, type Servers, serversAt } from './servers.ts';

export interface NativeOptions {
  /** Everything of the two servers lies under this absolute path; two directories are two independent instances. */
  readonly dir: string;
  readonly ports: Ports;
  readonly onProgress: OnProgress;
}

const PACKAGES = ['mariadb-server-core', 'mariadb-client-core', 'rabbitmq-server'];
/** Their programs; where they are there, nobody needs to be root. */
const PROGRAMS = [
  '/usr/sbin/mariadbd',
  '/usr/bin/mariadb-install-db',
  '/usr/lib/rabbitmq/bin/rabbitmq-server',
  '/usr/bin/epmd',
];
const installed = (): boolean => PROGRAMS.every((path) => existsSync(path));

export function nativeIsPossible(): boolean {
  if (process.platform !== 'linux') return false; // processes are recognised by /proc
  return installed() || canInstall();
}

/** Brings both servers up, installing them first if need be; what runs in `dir` already is kept. */
export async function startNative({ dir, ports, onProgress }: NativeOptions): Promise<Servers> {
  if (!installed()) await installPrograms(onProgress);
  mkdirSync(dir, { recursive: true });
  const results = await Promise.allSettled([
    startMariadb(dir, ports.database, onProgress),
    startRabbitmq(dir, ports, onProgress),
  ]);
  for (const result of results) if (result.status === 'rejected') throw result.reason;
  return serversAt('127.0.0.1', ports, 'mariadb');
}

export function nativeIsRunning(dir: string): boolean {
  return [mariadb(dir), rabbitmq(dir)].some((server) => runningPid(server) !== undefined);
}

/** Stops exactly the processes that `startNative` started in `dir`; their data stays. */
export async function stopNative(dir: string): Promise<void> {
  await Promise.all([stop(mariadb(dir)), stop(rabbitmq(dir))]);
  await stop(epmd(dir)); // last: the broker still signs off there
}

/** Stops them and forgets their data. */
export async function removeNative(dir: string): Promise<void> {
  await stopNative(dir);
  rmSync(dir, { recursive: true, force: true });
}

async function installPrograms(onProgress: OnProgress): Promise<void> {
  onProgress('installing MariaDB and RabbitMQ from Debian (about a minute)');
  await install(PACKAGES, onProgress);
  if (!installed())
    throw new Error(`${PACKAGES.join(', ')} are installed, and not all of ${PROGRAMS.join(', ')} are there`);
}
