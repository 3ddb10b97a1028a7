import type { Pool, RowDataPacket } from 'mysql2/promise';
import { onConnection } from './acquire.ts';
import { DatabaseError } from './errors.ts';
import { OPTIONS } from './own-options.ts';

/**
 * The least that a server accepts in one packet by default; a message of usual size fits with room
 * to spare.
 */
const LEAST_PACKET = 1024 * 1024;

const TIMEOUT_MS = 5_000;

interface Variables extends RowDataPacket {
  readonly version: string;
  readonly logs: number;
  readonly format: string;
  readonly packet: number;
  readonly statements: number;
  readonly engine: string | null;
}

const READ = `SELECT VERSION() AS version, @@log_bin AS logs, @@binlog_format AS format, @@max_allowed_packet AS packet,
    @@max_prepared_stmt_count AS statements,
    (SELECT SUPPORT FROM information_schema.ENGINES WHERE ENGINE = 'InnoDB') AS engine`;

const suitable = new WeakSet<Pool>();

/**
 * Asks a server whether it has a setting that Oncebox cannot live with, which no session can change
 * for itself. Once for each pool.
 *
 * @throws DatabaseError ONCEBOX_UNSUITABLE_SERVER that names the setting and what to set; what the
 *   database says when it is away.
 */
export async function assertSuitable(pool: Pool): Promise<void> {
  if (suitable.has(pool)) return;
  const read = onConnection(pool, TIMEOUT_MS, (connection) => connection.query<Variables[]>({ sql: READ, ...OPTIONS }));
  const [[found]] = await read.catch((error: unknown) => {
    const cause: unknown = error instanceof DatabaseError ? error.cause : undefined;
    throw cause instanceof DatabaseError && cause.code === 'ONCEBOX_UNSUITABLE_SERVER' ? cause : error;
  });
  const problem = found === undefined ? undefined : problemOf(found);
  if (problem !== undefined) throw new DatabaseError('ONCEBOX_UNSUITABLE_SERVER', problem);
  suitable.add(pool);
}

function problemOf({ version, logs, format, packet, statements, engine }: Variables): string | undefined {
  const [, major = '0', minor = '0'] = /^(\d+)\.(\d+)/.exec(version) ?? [];
  const [least, name] = version.includes('MariaDB') ? [10.06, 'MariaDB 10.6'] : [8.0, 'MySQL 8.0'];
  if (Number(major) + Number(minor) / 100 < least)
    return `The server is ${version}: Oncebox needs ${name} or later for SKIP LOCKED.`;
  if (engine !== 'YES' && engine !== 'DEFAULT')
    return 'The server has no InnoDB (skip_innodb): Oncebox needs transactions.';
  if (Number(logs) === 1 && format === 'STATEMENT') {
    return 'binlog_format is STATEMENT, with which InnoDB refuses to write at READ COMMITTED: set it to ROW or MIXED.';
  }
  if (Number(packet) < LEAST_PACKET)
    return `max_allowed_packet is ${packet}: set it to at least ${LEAST_PACKET}, better 64 MiB.`;
  if (Number(statements) === 0)
    return 'max_prepared_stmt_count is 0: set it to its default, as Oncebox prepares its statements.';
  return undefined;
}
