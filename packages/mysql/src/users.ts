import { type Connection, escapeId, type RowDataPacket } from 'mysql2/promise';
import { DatabaseError } from './errors.ts';
import { type DatabaseUrl, parseDatabaseUrl } from './pool.ts';
import { type OnProgress, withAdministrator } from './session.ts';

type Role = 'service' | 'relay';

/**
 * What each role may do with the tables that every schema has. A table that is not named here is the service's own.
 *
 * The service writes its outbox and never settles it, or it could lose what it has promised; only the relay takes rows away.
 * MySQL's `FOR UPDATE` wants UPDATE (MariaDB's does not), hence the relay's on partitions. It puts back a partition that somebody deleted.
 */
const MESSAGING: Readonly<Record<string, Readonly<Record<Role, string>>>> = {
  schema_migrations: { service: '', relay: '' },
  outbox: { service: 'SELECT, INSERT', relay: 'SELECT, UPDATE, DELETE' },
  outbox_partition: { service: '', relay: 'SELECT, INSERT, UPDATE' },
  outbox_waiting: { service: '', relay: 'SELECT, INSERT, UPDATE, DELETE' },
  processed_messages: { service: 'SELECT, INSERT, DELETE', relay: '' },
  dead_letters: { service: 'SELECT, INSERT, UPDATE, DELETE', relay: '' },
  consumers: { service: 'SELECT, INSERT, UPDATE, DELETE', relay: '' },
  consumer_workers: { service: 'SELECT, INSERT, UPDATE, DELETE', relay: '' },
  consumer_bindings: { service: 'SELECT, INSERT, UPDATE, DELETE', relay: '' },
  service_identity: { service: 'SELECT', relay: '' },
  held_messages: { service: 'SELECT, INSERT, UPDATE, DELETE', relay: '' },
  held_keys: { service: 'SELECT, INSERT, UPDATE, DELETE', relay: '' },
  claimed_payloads: { service: 'SELECT, INSERT, DELETE', relay: '' },
  retention: { service: 'SELECT, INSERT, UPDATE', relay: '' },
};
const OWN: Readonly<Record<Role, string>> = { service: 'SELECT, INSERT, UPDATE, DELETE', relay: '' };

export interface GrantOptions {
  /** The service's own URL: user, password and schema. */
  readonly serviceUrl: string;
  /** Of the relays of any number of schemas; those of others are left alone. */
  readonly relayUrls: readonly string[];
  /** Whether the schema's other tables are migrated here too. If not, who may use them is not ours to say. */
  readonly ownTables: boolean;
  readonly onProgress?: OnProgress;
}

/**
 * Makes the users that the URLs name, with the URLs' passwords (a rotated one takes effect), and grants each what its role
 * needs: no DDL, nothing of other schemas. To be called after `migrate()`, each time.
 *
 * The grants are per table, though `ON shop.*` would cover tables to come: privileges add up, so what a grant on the schema
 * gives cannot be taken back for its outbox. Hence "each time": a table that a migration adds needs its own. Revokes nothing.
 *
 * A URL of the administrator's own user (a team with one user for all) gets no grants.
 *
 * @throws DatabaseError ONCEBOX_INVALID_URL when a URL lacks its user, password or schema; ONCEBOX_GRANT_FAILED. Neither shows a password.
 */
export async function grantUsers(
  administratorUrl: string,
  { serviceUrl, relayUrls, ownTables, onProgress = () => undefined }: GrantOptions,
): Promise<void> {
  const administrator = parseDatabaseUrl(administratorUrl).user;
  const service = parseDatabaseUrl(serviceUrl);
  const relays = relayUrls.map(parseDatabaseUrl).filter(({ schema }) => schema === service.schema);
  const accounts = [
    { role: 'service' as const, url: service },
    ...relays.map((url) => ({ role: 'relay' as const, url })),
  ];
  for (const { url } of accounts) assertComplete(url);
  await withAdministrator(administratorUrl, onProgress, async (connection) => {
    const tables = await tablesOf(connection, service.schema);
    for (const { role, url } of accounts) {
      if (url.user === administrator) {
        onProgress(`${url.schema}: ${role} connects as ${url.user}, the administrator; nothing to grant`);
        continue;
      }
      await setPassword(connection, url);
      for (const table of tables) {
        const privileges = (MESSAGING[table] ?? (ownTables ? OWN : undefined))?.[role] ?? '';
        if (privileges === '') continue;
        // A name in backticks stands for itself here; `_` and `%` are patterns only in a grant on a whole schema.
        const on = `${escapeId(url.schema, true)}.${escapeId(table, true)}`;
        await run(connection, url, `GRANT ${privileges} ON ${on} TO ?@'%'`, [url.user]);
      }
      onProgress(`${url.schema}: granted to ${url.user} what a ${role} needs`);
    }
  });
}

function assertComplete({ user, password, schema }: DatabaseUrl): void {
  if (user !== '' && password !== '' && schema !== '') return;
  throw new DatabaseError(
    'ONCEBOX_INVALID_URL',
    `The URL of a service or relay must name user, password and schema; that of user "${user}" and schema "${schema}" does not. ` +
      'A user without a password would be open to everyone who reaches the server.',
  );
}

/** ALTER as well, because CREATE … IF NOT EXISTS leaves the password of a user who exists. */
async function setPassword(connection: Connection, url: DatabaseUrl): Promise<void> {
  await run(connection, url, "CREATE USER IF NOT EXISTS ?@'%' IDENTIFIED BY ?", [url.user, url.password]);
  await run(connection, url, "ALTER USER ?@'%' IDENTIFIED BY ?", [url.user, url.password]);
}

async function tablesOf(connection: Connection, schema: string): Promise<readonly string[]> {
  const [rows] = await connection.query<RowDataPacket[]>(
    'SELECT TABLE_NAME AS name FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? ORDER BY TABLE_NAME',
    [schema],
  );
  return rows.map((row) => String(row['name']));
}

/** Without the driver's error as its cause: that one carries the statement, and the statement the password. */
async function run(connection: Connection, url: DatabaseUrl, sql: string, values: readonly string[]): Promise<void> {
  try {
    await connection.query(sql, [...values]);
  } catch (error) {
    throw new DatabaseError(
      'ONCEBOX_GRANT_FAILED',
      `${sql.split(' ', 2).join(' ')} for ${url.user} on ${url.schema}: ${error instanceof Error ? error.message : 'failed'}`,
    );
  }
}
