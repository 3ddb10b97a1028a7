import { CustomerCreatedV1 } from '@oncebox/contracts';
import { createPool, fromConnection, transaction } from '@oncebox/mysql';
import { outbox } from '@oncebox/outbox';
import { type Connection, createConnection, createPool as createRawPool, type RowDataPacket } from 'mysql2/promise';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, onTestFinished, test } from 'vitest';
import { type Administrator, type Crossing, createCrossing } from '../support/crossing.ts';
import { createDatabase, type Database } from '../support/database.ts';
import { createSchemas } from '../support/schemas.ts';

/**
 * A server's settings are its operator's. Whatever they are, messages arrive as they were written,
 * or are refused with a code.
 */

const isMariadb = inject('servers').kind === 'mariadb';
const isGiven = inject('source') === 'given';
beforeEach(({ skip }) => skip(isGiven, 'a given server serves others, too: its settings stay as they are'));

interface Setting {
  readonly name: string;
  /** Global variables. */
  readonly globals: Readonly<Record<string, string | number>>;
  /**
   * Whether connections of mysql2's own are in utf8mb4. Otherwise the outbox refuses them. Default
   * true.
   */
  readonly rawSuits?: boolean;
}

const modes: readonly string[] = [
  '',
  'ANSI',
  'ANSI_QUOTES,NO_BACKSLASH_ESCAPES',
  'TRADITIONAL',
  'PIPES_AS_CONCAT,HIGH_NOT_PRECEDENCE',
  ...(isMariadb
    ? ['PAD_CHAR_TO_FULL_LENGTH', 'ORACLE,EMPTY_STRING_IS_NULL,SIMULTANEOUS_ASSIGNMENT']
    : ['TIME_TRUNCATE_FRACTIONAL']),
];

const variable = (mysql: string, mariadb: string): string => (isMariadb ? mariadb : mysql);
const isolation = variable('transaction_isolation', 'tx_isolation');
const readOnly = variable('transaction_read_only', 'tx_read_only');

const settings: readonly Setting[] = [
  { name: 'a charset of latin1', globals: { character_set_server: 'latin1', collation_server: 'latin1_swedish_ci' } },
  { name: 'a charset of utf8mb3', globals: { character_set_server: 'utf8mb3', collation_server: 'utf8mb3_bin' } },
  {
    name: 'another collation',
    globals: { collation_server: variable('utf8mb4_0900_as_cs', 'utf8mb4_nopad_bin') },
  },
  { name: 'init_connect to utf8mb3', globals: { init_connect: 'SET NAMES utf8mb3' }, rawSuits: false },
  { name: 'init_connect to latin1', globals: { init_connect: 'SET NAMES latin1' }, rawSuits: false },
  {
    name: 'init_connect to another mode, zone and limit',
    globals: {
      init_connect: "SET sql_mode = 'NO_BACKSLASH_ESCAPES', time_zone = '+03:00', autocommit = 0, sql_select_limit = 1",
    },
  },
  { name: 'a zone in the east', globals: { time_zone: '+05:30' } },
  { name: 'a zone in the west', globals: { time_zone: '-11:00' } },
  { name: 'autocommit off', globals: { autocommit: 0 } },
  { name: 'completion_type CHAIN', globals: { completion_type: 'CHAIN' } },
  { name: 'completion_type RELEASE', globals: { completion_type: 'RELEASE' } },
  { name: 'REPEATABLE READ', globals: { [isolation]: 'REPEATABLE-READ' } },
  { name: 'SERIALIZABLE', globals: { [isolation]: 'SERIALIZABLE' } },
  { name: 'safe updates', globals: { sql_safe_updates: 1 } },
  { name: 'a limit of one row', globals: { sql_select_limit: 1 } },
  { name: 'NULL for the last id', globals: { sql_auto_is_null: 1 } },
  {
    name: 'a limit of two seconds for a statement',
    globals: isMariadb ? { max_statement_time: 2 } : { max_execution_time: 2_000 },
  },
  { name: 'short waits', globals: { wait_timeout: 2, innodb_lock_wait_timeout: 1, lock_wait_timeout: 1 } },
  { name: 'no checks of keys', globals: { unique_checks: 0, foreign_key_checks: 0 } },
  {
    name: 'other defaults that are lawful',
    globals: {
      default_storage_engine: 'MyISAM',
      innodb_strict_mode: 0,
      group_concat_max_len: 4,
      sql_notes: 0,
      ...(isMariadb ? {} : { sql_require_primary_key: 1, sql_generate_invisible_primary_key: 1 }),
    },
  },
];

/**
 * Gives a block of tests a server, and a session that begins before the tests change its settings.
 */
function useServer(...serverArguments: string[]): { databaseUrl(): string; administrator: Administrator } {
  let database: Database;
  let connection: Connection;
  beforeAll(async () => {
    if (isGiven) return;
    database = await createDatabase(serverArguments);
    connection = await createConnection({ uri: database.databaseUrl, charset: 'utf8mb4' });
    await connection.query("SET NAMES utf8mb4, SESSION sql_mode = 'TRADITIONAL', autocommit = 1");
  });
  afterAll(async () => {
    await connection?.end();
    await database?.remove();
  });
  return {
    databaseUrl: () => database.databaseUrl,
    async administrator(sql, values = []) {
      const [rows] = await connection.query<RowDataPacket[]>(sql, [...values]);
      return rows;
    },
  };
}

/**
 * Sets global variables until the test ends. User variables keep the old values and their types.
 */
async function setGlobals(administrator: Administrator, globals: Setting['globals']): Promise<() => Promise<void>> {
  const names = Object.keys(globals);
  for (const name of names) await administrator(`SET @before_${name} = @@GLOBAL.${name}`);
  const reset = async (): Promise<void> => {
    for (const name of names) await administrator(`SET GLOBAL ${name} = @before_${name}`);
  };
  onTestFinished(reset);
  for (const [name, value] of Object.entries(globals)) await administrator(`SET GLOBAL ${name} = ?`, [value]);
  return reset;
}

async function newCrossing(databaseUrl: string, administrator: Administrator): Promise<Crossing> {
  const crossing = await createCrossing(databaseUrl, administrator);
  onTestFinished(async ({ task }) => {
    if (task.result?.state === 'fail')
      console.log('relay and consumers have said:', [...new Set(crossing.said)].slice(0, 20));
    await crossing.close();
  });
  return crossing;
}

/** The broker refuses some messages at first, some fail once, and some are dead for a while. */
async function cross(databaseUrl: string, administrator: Administrator, rawSuits = true): Promise<void> {
  const crossing = await newCrossing(databaseUrl, administrator);
  const stopRelay = crossing.startRelay();
  await crossing.ours.write();
  await crossing.untilRefused();
  for (const writer of [crossing.rawPool, crossing.rawConnection]) {
    if (rawSuits) await writer.write();
    else await expect(writer.write(), writer.name).rejects.toMatchObject({ code: 'ONCEBOX_UNSUITABLE_CONNECTION' });
  }
  await stopRelay();
  await crossing.expectStored();
  crossing.startConsumers();
  await crossing.untilConsuming();
  crossing.startRelay();
  await crossing.expectEffects();
  await crossing.expectForgotten();
}

describe('settings that a running server takes', () => {
  const { databaseUrl, administrator } = useServer();

  test.each(modes)("B1: under sql_mode '%s' messages arrive byte for byte, whatever their keys", async (sql_mode) => {
    await setGlobals(administrator, { sql_mode });
    await cross(databaseUrl(), administrator);
  });

  test.each(settings)('B2: with $name messages arrive byte for byte', async ({ globals, rawSuits }) => {
    await setGlobals(administrator, globals);
    await cross(databaseUrl(), administrator, rawSuits);
  });

  test('B2: a server whose sessions are read-only is an outage, and what was refused then goes through later', async () => {
    const crossing = await newCrossing(databaseUrl(), administrator);
    const reset = await setGlobals(administrator, { [readOnly]: 1 });
    crossing.startRelay();
    crossing.startConsumers();
    await expect(crossing.ours.write()).rejects.toMatchObject({ errno: 1792 });
    await expect(crossing.rawPool.write()).rejects.toMatchObject({ errno: 1792 });
    await expect(crossing.rawConnection.write()).rejects.toMatchObject({ errno: 1792 });
    await expect.poll(() => crossing.said.join(), { timeout: 20_000 }).toMatch(/1792|read.only/i);
    await reset();
    await crossing.untilConsuming();
    for (const writer of [crossing.ours, crossing.rawPool, crossing.rawConnection]) await writer.write();
    await crossing.expectStored();
    await crossing.expectEffects();
  });

  test('B2: a pool whose idle sessions the server has ended opens new ones', async () => {
    const schemas = await createSchemas({ databaseUrl: databaseUrl() });
    await setGlobals(administrator, { wait_timeout: 1 });
    const pool = createPool(schemas.shop.url, { connections: 2 });
    onTestFinished(() => pool.end());
    const message = () =>
      CustomerCreatedV1.message({ customerId: uuidv7(), email: 'a@example.com', name: 'A', version: 1 });
    const sessions = () =>
      administrator('SELECT id FROM information_schema.processlist WHERE db = ?', [schemas.shop.name]);
    for (let round = 0; round < 2; round++) {
      await transaction(pool, (tx) => outbox.add(tx, message()));
      await expect.poll(sessions, { timeout: 20_000 }).toEqual([]);
    }
    expect(await administrator(`SELECT COUNT(*) AS n FROM ${schemas.shop.name}.outbox`)).toEqual([{ n: 2 }]);
  });

  // As mysql2 calls latin1 and utf8mb3.
  test.each(['LATIN1_SWEDISH_CI', 'UTF8_GENERAL_CI'])(
    'A4: a connection in %s is refused, and its text is not altered',
    async (charset) => {
      const schemas = await createSchemas({ databaseUrl: databaseUrl() });
      const message = CustomerCreatedV1.message({
        customerId: uuidv7(),
        email: 'z@example.com',
        name: 'Zoë 🚚',
        version: 1,
      });
      const pool = createRawPool({ uri: schemas.shop.url, charset });
      onTestFinished(() => pool.end());
      const refusal = { code: 'ONCEBOX_UNSUITABLE_CONNECTION' };
      await expect(transaction(pool, (tx) => outbox.add(tx, message))).rejects.toMatchObject(refusal);
      const connection = await createConnection({ uri: schemas.shop.url, charset });
      onTestFinished(() => connection.end());
      await connection.beginTransaction();
      const attempt = async () => outbox.add(await fromConnection(connection), message);
      await expect(attempt()).rejects.toMatchObject(refusal);
      await connection.commit();
      expect(await administrator(`SELECT id FROM ${schemas.shop.name}.outbox`)).toEqual([]);
    },
  );
});

describe('a server that was started with a lock wait timeout that rolls back everything, other locks and lower case', () => {
  const { databaseUrl, administrator } = useServer(
    '--innodb-rollback-on-timeout=ON',
    '--innodb-autoinc-lock-mode=0',
    '--lower-case-table-names=1',
    '--innodb-lock-wait-timeout=1',
  );

  test('B2: messages arrive byte for byte', () => cross(databaseUrl(), administrator));

  test('A6: what is written after a lock wait timeout that the caller has caught is not committed by itself', async () => {
    const schemas = await createSchemas({ databaseUrl: databaseUrl() });
    const pool = createPool(schemas.shop.url, { connections: 2 });
    onTestFinished(() => pool.end());
    const lock = `SELECT name FROM ${schemas.shop.name}.retention WHERE name = 'processed_messages' FOR UPDATE`;
    await administrator('BEGIN');
    await administrator(lock);
    const message = () =>
      CustomerCreatedV1.message({ customerId: uuidv7(), email: 'a@example.com', name: 'A', version: 1 });
    const work = transaction(
      pool,
      async (tx) => {
        await outbox.add(tx, message());
        await tx.query(lock).catch(() => undefined);
        await outbox.add(tx, message());
      },
      { attempts: 1 },
    );
    await expect(work).rejects.toMatchObject({ code: 'ONCEBOX_TRANSACTION_LOST' });
    await administrator('ROLLBACK');
    expect(await administrator(`SELECT id FROM ${schemas.shop.name}.outbox`)).toEqual([]);
  });
});

describe('a server that was started in latin1', () => {
  // MariaDB's can ignore the charset that its clients ask for.
  const handshake = isMariadb ? ['--skip-character-set-client-handshake'] : [];
  const { databaseUrl, administrator } = useServer(
    '--character-set-server=latin1',
    '--collation-server=latin1_swedish_ci',
    '--innodb-autoinc-lock-mode=2',
    ...handshake,
  );

  test('B2: messages arrive byte for byte', () => cross(databaseUrl(), administrator, !isMariadb));
});
