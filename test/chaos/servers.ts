import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { mariadb, startMariadb } from '../../deploy/infra/mariadb.ts';
import { removeNative, startNative } from '../../deploy/infra/native.ts';
import { killRemains, type ServerProcess, stop } from '../../deploy/infra/process.ts';
import { rabbitmq, startRabbitmq } from '../../deploy/infra/rabbitmq.ts';
import { type Servers, serversAt } from '../../deploy/infra/servers.ts';
import { chooseSource, engineAnswers } from '../../deploy/infra/source.ts';
import { guard } from '../support/guard.ts';
import { freePorts, mysqlContainer, NATIVE, rabbitmqContainer, TEST_RUN } from '../support/servers.ts';

/** How a server goes down before it comes back: as it is asked to, or with SIGKILL. */
export type Manner = 'stopped' | 'killed';

/** A database and a broker of one run's own, which may be restarted; their data outlives that. */
export interface RestartableServers {
  readonly servers: Servers;
  /** Resolves when it answers again. */
  restart(server: 'database' | 'broker', manner: Manner): Promise<void>;
  remove(): Promise<void>;
}

/** From a Docker engine, or from Debian's packages; `INFRA=docker` and `INFRA=native` leave no choice. Given ones are not for restarting. */
export async function startServers(onProgress: (line: string) => void): Promise<RestartableServers> {
  // Without the URLs of given ones.
  const { INFRA } = process.env;
  const source = await chooseSource(INFRA === undefined ? {} : { INFRA }, ['AMQP_URL'], engineAnswers);
  onProgress(`starting a database and a broker of our own (${source})`);
  return source === 'docker' ? inDocker() : natively(onProgress);
}

async function natively(onProgress: (line: string) => void): Promise<RestartableServers> {
  const dir = join(NATIVE, `${process.pid}-chaos`);
  mkdirSync(dir, { recursive: true });
  guard('native', dir);
  const ports = await freePorts();
  const servers = await startNative({ dir, ports, onProgress });
  const end = (server: ServerProcess, manner: Manner) => (manner === 'killed' ? killRemains(server) : stop(server));
  return {
    servers,
    async restart(server, manner) {
      await end(server === 'database' ? mariadb(dir) : rabbitmq(dir), manner);
      if (server === 'database') await startMariadb(dir, ports.database, () => undefined);
      else await startRabbitmq(dir, ports, () => undefined);
    },
    remove: () => removeNative(dir),
  };
}

async function inDocker(): Promise<RestartableServers> {
  process.env['TESTCONTAINERS_RYUK_DISABLED'] ??= 'true'; // as in servers.ts
  const run = `${process.pid}-chaos-${Date.now()}`;
  guard('docker', `${TEST_RUN}=${run}`);
  const ports = await freePorts();
  const labels = { [TEST_RUN]: run };
  const [database, broker] = await Promise.all([
    mysqlContainer(ports, labels).start(),
    rabbitmqContainer(ports, labels).start(),
  ]);
  return {
    servers: serversAt(database.getHost(), ports, 'mysql'),
    restart: (server, manner) =>
      (server === 'database' ? database : broker).restart({ timeout: manner === 'killed' ? 0 : 30_000 }),
    async remove() {
      await Promise.all([database, broker].map((each) => each.stop({ removeVolumes: true })));
    },
  };
}
