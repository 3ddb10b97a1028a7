import { cpus, loadavg, release, totalmem } from 'node:os';
import type { RowDataPacket } from 'mysql2/promise';
import type { Source } from '../deploy/infra/source.ts';
import type { Testbed } from './testbed.ts';

/** What a number depends on and does not say. */
export type Environment = Readonly<Record<string, string>>;

/** Those that decide what a commit costs, and how much of the data is in memory. */
const SETTINGS = [
  'version',
  'innodb_flush_log_at_trx_commit',
  'innodb_flush_method',
  'innodb_doublewrite',
  'log_bin',
  'sync_binlog',
  'innodb_buffer_pool_size',
  'innodb_log_file_size',
  'innodb_redo_log_capacity',
];

export async function readEnvironment(bed: Testbed, source: Source): Promise<Environment> {
  const [rows] = await bed.shop.query<RowDataPacket[]>('SHOW GLOBAL VARIABLES WHERE Variable_name IN (?)', [SETTINGS]);
  const database = rows.map((row) => [`database ${row['Variable_name']}`, String(row['Value'])] as const);
  return {
    'begun at': new Date().toISOString(),
    processor: `${cpus()[0]?.model ?? 'unknown'}, ${cpus().length} cores for everything, the servers included`,
    memory: `${Math.round(totalmem() / 2 ** 30)} GiB`,
    'operating system': `${process.platform} ${release()}`,
    'load average at the beginning': loadavg()
      .map((load) => load.toFixed(1))
      .join(' '),
    node: process.version,
    servers: `${bed.servers.kind} and rabbitmq, ${source}`,
    ...Object.fromEntries(database),
    broker: await brokerVersion(bed.servers.managementUrl),
    queues: 'quorum, persistent messages: a confirm comes after an fsync',
  };
}

async function brokerVersion(managementUrl: string): Promise<string> {
  const { host, username, password } = new URL(managementUrl);
  const authorization = `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
  const response = await fetch(`http://${host}/api/overview`, { headers: { authorization } });
  const overview: unknown = await response.json();
  const of = (name: string) => (typeof overview === 'object' && overview !== null ? Reflect.get(overview, name) : '?');
  return `RabbitMQ ${of('rabbitmq_version')}, Erlang ${of('erlang_version')}`;
}
