import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { createConnection } from 'mysql2/promise';
import { inject } from 'vitest';
import { mariadb, startMariadb } from '../../deploy/infra/mariadb.ts';
import { removeNative } from '../../deploy/infra/native.ts';
import { stop } from '../../deploy/infra/process.ts';
import { serversAt } from '../../deploy/infra/servers.ts';
import { guard } from './guard.ts';
import { startProxy } from './proxy.ts';
import { freePorts, mysqlContainer, NATIVE, TEST_RUN } from './servers.ts';

/** A database server of one test's own, which it may stop or make read-only: the shared one must stay as it is. Data outlives a stop. */
export interface Database {
  /** The administrator's. */
  readonly databaseUrl: string;
  stop(): Promise<void>;
  start(): Promise<void>;
  /** As a failover leaves the old primary: connections stay, and writes of users without special rights are refused. */
  readOnly(on: boolean): Promise<void>;
  remove(): Promise<void>;
}

/**
 * Of the same kind as the shared servers. A given one belongs to others, so there a proxy refuses in its
 * stead, for both faults.
 *
 * @param serverArguments such as `--lower-case-table-names=1`.
 * @throws Error for a given server, which has started without them.
 */
export async function createDatabase(serverArguments: readonly string[] = []): Promise<Database> {
  const source = inject('source');
  if (source === 'docker') return inDocker(serverArguments);
  if (source === 'native') return natively(serverArguments);
  if (serverArguments.length > 0) throw new Error(`A given server cannot be started with ${serverArguments.join(' ')}`);
  return behindProxy();
}

async function natively(serverArguments: readonly string[]): Promise<Database> {
  const dir = join(NATIVE, `${process.pid}-database`);
  mkdirSync(dir, { recursive: true });
  guard('native', dir);
  const ports = await freePorts();
  const start = () => startMariadb(dir, ports.database, () => undefined, serverArguments);
  await start();
  const { databaseUrl } = serversAt('127.0.0.1', ports, 'mariadb');
  return {
    databaseUrl,
    start,
    stop: () => stop(mariadb(dir)),
    readOnly: (on) => set(databaseUrl, 'read_only', on),
    remove: () => removeNative(dir),
  };
}

async function inDocker(serverArguments: readonly string[]): Promise<Database> {
  const run = `${process.pid}-database-${Date.now()}`;
  guard('docker', `${TEST_RUN}=${run}`);
  const ports = await freePorts();
  const container = await mysqlContainer(ports, { [TEST_RUN]: run }, serverArguments).start();
  const { databaseUrl } = serversAt(container.getHost(), ports, 'mysql');
  return {
    databaseUrl,
    start: () => container.restart(),
    stop: async () => void (await container.stop({ remove: false })),
    // What managed services set; it includes read_only.
    readOnly: (on) => set(databaseUrl, on ? 'super_read_only' : 'read_only', on),
    remove: async () => void (await container.stop({ removeVolumes: true })),
  };
}

async function behindProxy(): Promise<Database> {
  const proxy = await startProxy(inject('servers').databaseUrl);
  return {
    databaseUrl: proxy.url,
    start: proxy.pass,
    stop: proxy.refuse,
    readOnly: (on) => (on ? proxy.refuse() : proxy.pass()),
    remove: async () => undefined,
  };
}

async function set(databaseUrl: string, variable: 'read_only' | 'super_read_only', on: boolean): Promise<void> {
  const connection = await createConnection({ uri: databaseUrl });
  await connection.query(`SET GLOBAL ${variable} = ?`, [on ? 1 : 0]);
  await connection.end();
}
