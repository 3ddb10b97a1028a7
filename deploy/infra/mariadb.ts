import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createConnection } from 'mysql2/promise';
import { launch, type OnProgress, requireFreePort, runningPid, type ServerProcess, untilReady } from './process.ts';
import { ADMINISTRATOR, serversAt } from './servers.ts';

export const mariadb = (dir: string): ServerProcess => ({ dir, name: 'mariadb' });

/**
 * Brings up a private MariaDB under `dir`; one that runs there already is kept.
 *
 * @param more arguments of `mariadbd` that win over ours.
 */
export async function startMariadb(
  dir: string,
  port: number,
  onProgress: OnProgress,
  more: readonly string[] = [],
): Promise<void> {
  const server = mariadb(dir);
  if (runningPid(server) === undefined) {
    await requireFreePort('MariaDB', port);
    const data = join(dir, 'mariadb');
    if (!existsSync(data)) await initialise(data, onProgress);
    onProgress(`starting MariaDB on 127.0.0.1:${port}`);
    await launch(server, ['/usr/sbin/mariadbd', ...options(dir, data, port), ...more], process.env);
  }
  await untilReady(server, () => answers(port), 60_000);
}

/** In a directory of another name first: a run killed half-way leaves no data directory that looks complete. */
async function initialise(data: string, onProgress: OnProgress): Promise<void> {
  onProgress('creating the database files');
  const unfinished = `${data}.new`;
  rmSync(unfinished, { recursive: true, force: true });
  mkdirSync(unfinished, { recursive: true });
  await promisify(execFile)('/usr/bin/mariadb-install-db', [
    '--no-defaults',
    `--datadir=${unfinished}`,
    '--auth-root-authentication-method=normal',
    '--skip-test-db',
    ...asRoot(),
  ]);
  renameSync(unfinished, data);
}

/** Durability is the server's default: every commit is flushed, as in production. */
function options(dir: string, data: string, port: number): string[] {
  // Run at every start, before the server listens. Accounts of a nearer host would shadow those of '%', so they go.
  const accounts = join(dir, 'accounts.sql');
  const { database: user, password } = ADMINISTRATOR;
  writeFileSync(
    accounts,
    [
      `DELETE FROM mysql.global_priv WHERE User = '' OR (User = '${user}' AND Host NOT IN ('localhost', '%'));`,
      'FLUSH PRIVILEGES;',
      `ALTER USER ${user}@localhost IDENTIFIED BY '${password}';`,
      `CREATE OR REPLACE USER ${user}@'%' IDENTIFIED BY '${password}';`,
      `GRANT ALL ON *.* TO ${user}@'%' WITH GRANT OPTION;`,
      '',
    ].join('\n'),
  );
  return [
    '--no-defaults',
    `--datadir=${data}`,
    `--init-file=${accounts}`,
    // A server that starts deletes whatever temporary tables it finds in its tmpdir: in /tmp, those of every other one.
    `--tmpdir=${dir}`,
    '--bind-address=127.0.0.1',
    `--port=${port}`,
    // Relative to the data directory: a socket's path may have 107 bytes, and a clone may lie deep.
    '--socket=mariadb.sock',
    '--pid-file=mariadb.pid',
    '--skip-name-resolve',
    // MySQL's defaults, where MariaDB's differ.
    '--character-set-server=utf8mb4',
    '--max-allowed-packet=64M',
    '--max-connections=500',
    ...asRoot(),
  ];
}

/** MariaDB refuses to run as root unless told to. */
const asRoot = (): string[] => (process.getuid?.() === 0 ? ['--user=root'] : []);

async function answers(port: number): Promise<boolean> {
  try {
    const connection = await createConnection({
      uri: serversAt('127.0.0.1', { database: port, amqp: 0, management: 0 }, 'mariadb').databaseUrl,
      connectTimeout: 2_000,
    });
    await connection.end();
    return true;
  } catch {
    return false;
  }
}
