import { join } from 'node:path';
import { createConnection } from 'mysql2/promise';
import { GenericContainer, Wait } from 'testcontainers';
import type { TestProject } from 'vitest/node';
import { removeNative, startNative } from '../../deploy/infra/native.ts';
import { portIsFree } from '../../deploy/infra/process.ts';
import { ADMINISTRATOR, type Ports, type Servers, serversAt } from '../../deploy/infra/servers.ts';
import { chooseSource, engineAnswers, type Source } from '../../deploy/infra/source.ts';
import { guard } from './guard.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** `inject('servers')` in a test file: the servers of this run, which the file shares with all others. */
    servers: Servers;
    /** Where they come from, for a test that needs one of its own from there. */
    source: Source;
  }
}

const GIVEN = ['MIGRATE_DATABASE_URL', 'AMQP_URL', 'RABBITMQ_MANAGEMENT_URL'] as const;
/** One directory for each run, named by its process: runs side by side must not stop each other's servers. */
export const NATIVE = join(import.meta.dirname, '../../.infra/test');

declare global {
  var testServers: Started | undefined;
}

export interface Started {
  readonly servers: Servers;
  readonly source: Source;
  stop(): Promise<void>;
}

/**
 * Vitest calls this for every project that names this file and has tests to run, one after another, each time on a
 * fresh copy of the module: what the copies share hangs on the process.
 */
export async function setup(project: TestProject): Promise<void> {
  globalThis.testServers ??= await start();
  project.provide('servers', globalThis.testServers.servers);
  project.provide('source', globalThis.testServers.source);
}

export async function teardown(): Promise<void> {
  const started = globalThis.testServers;
  globalThis.testServers = undefined;
  await started?.stop();
}

export async function start(): Promise<Started> {
  const source = await chooseSource(process.env, GIVEN, engineAnswers);
  console.log(`test servers: ${source}`);
  const begin = { given, docker: inDocker, native: natively }[source];
  return { source, ...(await begin()) };
}

async function given(): Promise<Omit<Started, 'source'>> {
  const [databaseUrl = '', amqpUrl = '', managementUrl = ''] = GIVEN.map((name) => process.env[name]);
  const connection = await createConnection({ uri: databaseUrl });
  const [rows] = await connection.query('SELECT VERSION() AS version');
  await connection.end();
  const kind = JSON.stringify(rows).includes('MariaDB') ? 'mariadb' : 'mysql';
  return { servers: { databaseUrl, amqpUrl, managementUrl, kind }, stop: async () => {} };
}

async function inDocker(): Promise<Omit<Started, 'source'>> {
  // Our own guard does what Ryuk does, for native servers too and without an image to fetch.
  process.env['TESTCONTAINERS_RYUK_DISABLED'] ??= 'true';
  const run = `${process.pid}-${Date.now()}`;
  guard('docker', `${TEST_RUN}=${run}`);
  // Ports of our choice stay the same when a test restarts a server; those that Docker chooses do not.
  const ports = await freePorts();
  const mysql = mysqlContainer(ports, { [TEST_RUN]: run }).start();
  const rabbitmq = rabbitmqContainer(ports, { [TEST_RUN]: run }).start();
  const stop = async (): Promise<void> => {
    for (const { value } of (await Promise.allSettled([mysql, rabbitmq])).filter((r) => r.status === 'fulfilled')) {
      await value.stop({ removeVolumes: true });
    }
  };
  try {
    const [database] = await Promise.all([mysql, rabbitmq]);
    return { servers: serversAt(database.getHost(), ports, 'mysql'), stop };
  } catch (error) {
    await stop(); // the one that did start
    throw error;
  }
}

/** For `guard`, which finds a run's containers by it. */
export const TEST_RUN = 'oncebox.test-run';

/** @param more arguments of `mysqld` that win over ours. */
export function mysqlContainer(
  { database }: Ports,
  labels: Record<string, string>,
  more: readonly string[] = [],
): GenericContainer {
  const { password } = ADMINISTRATOR;
  return (
    new GenericContainer('mysql:9.7')
      .withLabels(labels)
      .withEnvironment({ MYSQL_ROOT_PASSWORD: password })
      .withCommand(['--max-connections=500', ...more])
      .withExposedPorts({ container: 3306, host: database })
      // By TCP: while the image initialises, a temporary server answers on the socket alone.
      .withWaitStrategy(
        Wait.forSuccessfulCommand(`mysql --protocol=tcp --host=127.0.0.1 --password=${password} --execute='SELECT 1'`),
      )
      .withStartupTimeout(120_000)
  );
}

export function rabbitmqContainer({ amqp, management }: Ports, labels: Record<string, string>): GenericContainer {
  const { broker, password } = ADMINISTRATOR;
  return new GenericContainer('rabbitmq:4.3-management')
    .withLabels(labels)
    .withEnvironment({ RABBITMQ_DEFAULT_USER: broker, RABBITMQ_DEFAULT_PASS: password })
    .withExposedPorts({ container: 5672, host: amqp }, { container: 15672, host: management })
    .withWaitStrategy(
      Wait.forHttp('/api/health/checks/port-listener/5672', 15672).withBasicCredentials(broker, password),
    )
    .withStartupTimeout(120_000);
}

async function natively(): Promise<Omit<Started, 'source'>> {
  const dir = join(NATIVE, String(process.pid));
  guard('native', dir);
  const onProgress = (line: string) => console.log(`test servers: ${line}`);
  try {
    const servers = await startNative({ dir, ports: await freePorts(), onProgress });
    return { servers, stop: () => removeNative(dir) };
  } catch (error) {
    await removeNative(dir);
    throw error;
  }
}

/** Five in a row, below Linux's ephemeral range, so that no outgoing connection of this machine holds one. */
export async function freePorts(): Promise<Ports> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const first = 20_000 + Math.floor(Math.random() * 2_400) * 5;
    const [database, amqp, management, distribution, epmd] = [first, first + 1, first + 2, first + 3, first + 4];
    const free = await Promise.all([database, amqp, management, distribution, epmd].map(portIsFree));
    if (free.every(Boolean)) return { database, amqp, management, distribution, epmd };
  }
  throw new Error('No five free ports in a row between 20000 and 32000 on 127.0.0.1');
}
