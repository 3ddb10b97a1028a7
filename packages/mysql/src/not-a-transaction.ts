import { DatabaseError } from './errors.ts';
import { type Handle, handleOf, type Transaction } from './handle.ts';

/** A property of anything at all: a getter or a proxy that throws has none. */
function at(value: unknown, ...path: readonly string[]): unknown {
  let found = value;
  for (const name of path) {
    if ((typeof found !== 'object' && typeof found !== 'function') || found === null) return undefined;
    try {
      found = Reflect.get(found, name);
    } catch {
      return undefined;
    }
  }
  return found;
}

const isFunction = (value: unknown, ...path: readonly string[]): boolean => typeof at(value, ...path) === 'function';

/**
 * Of what is often passed instead: how to know it, and what to pass. In the order in which they are
 * asked.
 */
const KNOWN: readonly { readonly what: string; readonly pass: string; is(value: unknown): boolean }[] = [
  {
    what: 'a Knex transaction',
    pass: 'await fromConnection(await trx.client.acquireConnection())',
    is: (value) =>
      typeof value === 'function' && isFunction(value, 'client', 'acquireConnection') && isFunction(value, 'commit'),
  },
  {
    what: 'Knex itself, which is a pool',
    pass: 'the connection of a transaction: knex.transaction(async (trx) => … await fromConnection(await trx.client.acquireConnection()))',
    is: (value) => typeof value === 'function' && isFunction(value, 'client', 'acquireConnection'),
  },
  {
    what: 'a TypeORM entity manager',
    pass: 'await fromConnection(await manager.queryRunner.connect())',
    is: (value) => isFunction(value, 'getRepository') && at(value, 'connection') !== undefined,
  },
  {
    what: 'a TypeORM query runner',
    pass: 'await fromConnection(await queryRunner.connect())',
    is: (value) => isFunction(value, 'startTransaction') && isFunction(value, 'connect'),
  },
  {
    what: 'a Drizzle transaction or database',
    pass: 'await fromConnection(connection), with the mysql2 connection on which you made that database: drizzle(connection)',
    is: (value) => at(value, 'dialect') !== undefined && at(value, 'session') !== undefined,
  },
  {
    what: 'a Kysely transaction or database',
    pass: 'await fromConnection(connection), with the mysql2 connection that its dialect uses for this transaction',
    is: (value) => isFunction(value, 'selectFrom') && isFunction(value, 'getExecutor'),
  },
  {
    what: 'a Sequelize transaction',
    pass: 'await fromConnection(transaction.connection)',
    is: (value) => at(value, 'sequelize') !== undefined && isFunction(value, 'commit'),
  },
  {
    what: 'a MikroORM entity manager',
    pass: 'await fromConnection(connection), with the mysql2 connection of its transaction',
    is: (value) => isFunction(value, 'getTransactionContext'),
  },
  {
    what: 'a Prisma client, which shows no mysql2 connection',
    pass: 'a transaction of transaction(pool, work), or insert the row with Prisma as docs/adopting.md describes',
    is: (value) => isFunction(value, '$queryRaw'),
  },
  {
    what: 'a pool, each of whose queries may run on another connection',
    pass: 'tx inside transaction(pool, async (tx) => …)',
    is: (value) => isFunction(value, 'getConnection'),
  },
  {
    what: 'a bare connection, or a transaction that has ended',
    pass: 'tx inside transaction(pool, async (tx) => …), or await fromConnection(connection) where your own library has begun one',
    is: (value) => isFunction(value, 'execute') || isFunction(value, 'query'),
  },
];

/**
 * @internal The error for a value that stood where a transaction, or the connection of one, must.
 */
export function notATransaction(by: string, value: unknown): DatabaseError {
  const known = KNOWN.find(({ is }) => is(value));
  const what =
    known?.what ?? (value === null ? 'null' : typeof value === 'object' ? 'an object that is none' : typeof value);
  const pass =
    known?.pass ??
    'tx inside transaction(pool, async (tx) => …), or await fromConnection(connection) where your own library has begun a transaction';
  return new DatabaseError(
    'ONCEBOX_NOT_A_TRANSACTION',
    `${by} needs an open transaction and got ${what}: pass ${pass}.`,
  );
}

/** @internal The handle behind a transaction. @throws DatabaseError ONCEBOX_NOT_A_TRANSACTION */
export function handleIn(by: string, value: unknown): Handle {
  const found = handleOf(value);
  if (found === undefined) throw notATransaction(by, value);
  return found;
}

/**
 * Refuses what is no open transaction. Called by everything that must be atomic with the caller's
 * own writes.
 *
 * @throws DatabaseError ONCEBOX_NOT_A_TRANSACTION that says what to pass instead.
 */
export function assertTransaction(value: unknown): asserts value is Transaction {
  handleIn('This', value);
}
